# python tools/train.py configs/teachers/resnet56_svhn.py
from mmengine.config import read_base

with read_base():
    from .._base_.networks import resnet56
    from .._base_.runtime import *
    from .._base_.schedules.paper_35e import *
    from .._base_.datasets.svhn import *                 # in place of the data that the schedule brings along

from mmcrrcd.models import Distiller

resnet56.head.update(num_classes=10)
model = dict(type=Distiller, student=resnet56, data_preprocessor=data_preprocessor)
