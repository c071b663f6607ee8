# python tools/train.py configs/teachers/densenet100_cifar100.py      # or tools/import_teacher.py FILE ...
from mmengine.config import read_base

with read_base():
    from .._base_.networks import densenet100
    from .._base_.runtime import *
    from .._base_.schedules.cifar_240e import *          # or paper_35e

from mmcrrcd.models import Distiller

data_preprocessor.update(mean=[125.3, 123.0, 113.9], std=[51.6, 50.8, 51.3])         # as those who published its weights
model = dict(type=Distiller, student=densenet100, data_preprocessor=data_preprocessor)
