# python tools/train.py configs/face/iresnet18_lfw.py
from mmengine.config import read_base

with read_base():
    from .._base_.face_networks import iresnet18
    from .._base_.schedules.face_35e import *
    from .._base_.datasets.lfw import *                  # in place of the data that the schedule brings along

from mmcrrcd.models import Distiller

iresnet18.head.update(num_classes=1334)
iresnet18.neck.update(map_size=4)
model = dict(type=Distiller, student=iresnet18, input_size=64, data_preprocessor=data_preprocessor)
