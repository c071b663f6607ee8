# python tools/train.py configs/face/resnet18_lfw_16px.py
from mmengine.config import read_base

with read_base():
    from .._base_.face_networks import resnet18_16px
    from .._base_.schedules.face_35e import *
    from .._base_.datasets.lfw import *                  # in place of the data that the schedule brings along

from mmcrrcd.models import Distiller

resnet18_16px.head.update(num_classes=1334)
data_preprocessor.update(resolution=16)
model = dict(type=Distiller, student=resnet18_16px, input_size=64, data_preprocessor=data_preprocessor)
