# python tools/train.py configs/teachers/vgg8_tinyimagenet.py
from mmengine.config import read_base

with read_base():
    from .._base_.networks import vgg8
    from .._base_.runtime import *
    from .._base_.schedules.paper_35e import *
    from .._base_.datasets.tiny_imagenet import *        # in place of the data that the schedule brings along

from mmcrrcd.models import Distiller

vgg8.head.update(num_classes=200)
model = dict(type=Distiller, student=vgg8, input_size=64, data_preprocessor=data_preprocessor)
