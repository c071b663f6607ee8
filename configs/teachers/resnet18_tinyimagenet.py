# python tools/train.py configs/teachers/resnet18_tinyimagenet.py
from mmengine.config import read_base

with read_base():
    from .._base_.networks import resnet18
    from .._base_.runtime import *
    from .._base_.schedules.paper_35e import *
    from .._base_.datasets.tiny_imagenet import *        # in place of the data that the schedule brings along

from mmcrrcd.models import Distiller

resnet18.head.update(num_classes=200)
model = dict(type=Distiller, student=resnet18, input_size=64, data_preprocessor=data_preprocessor)
