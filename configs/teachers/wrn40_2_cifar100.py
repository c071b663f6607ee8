# python tools/train.py configs/teachers/wrn40_2_cifar100.py
from mmengine.config import read_base

with read_base():
    from .._base_.networks import wrn40_2
    from .._base_.runtime import *
    from .._base_.schedules.cifar_240e import *          # or paper_35e

from mmcrrcd.models import Distiller

model = dict(type=Distiller, student=wrn40_2, data_preprocessor=data_preprocessor)
