# python tools/train.py configs/students/vgg8_cifar100.py
from mmengine.config import read_base

with read_base():
    from .._base_.networks import vgg8
    from .._base_.runtime import *
    from .._base_.schedules.cifar_240e import *          # or paper_35e

from mmcrrcd.models import Distiller

data_preprocessor.update(resolution=None)                # what the student sees: 8, 16, ... pixels, or None for all 32
model = dict(type=Distiller, student=vgg8, data_preprocessor=data_preprocessor)
