# python tools/train.py configs/teachers/resnet18_cifar100.py
from mmengine.config import read_base

with read_base():
    from .._base_.networks import resnet18
    from .._base_.runtime import *
    from .._base_.schedules.cifar_240e import *          # or paper_35e

from mmcrrcd.models import Distiller

model = dict(type=Distiller, student=resnet18, data_preprocessor=data_preprocessor)
