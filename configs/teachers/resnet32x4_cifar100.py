# python tools/train.py configs/teachers/resnet32x4_cifar100.py
from mmengine.config import read_base

with read_base():
    from .._base_.networks import resnet32x4
    from .._base_.runtime import *
    from .._base_.schedules.cifar_240e import *          # or paper_35e

from mmcrrcd.models import Distiller

model = dict(type=Distiller, student=resnet32x4, data_preprocessor=data_preprocessor)
