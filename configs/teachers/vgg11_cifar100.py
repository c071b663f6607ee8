# python tools/train.py configs/teachers/vgg11_cifar100.py
from mmengine.config import read_base

with read_base():
    from .._base_.networks import vgg11
    from .._base_.runtime import *
    from .._base_.schedules.cifar_240e import *          # or paper_35e

from mmcrrcd.models import Distiller

model = dict(type=Distiller, student=vgg11, data_preprocessor=data_preprocessor)
