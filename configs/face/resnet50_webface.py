# python tools/train.py configs/face/resnet50_webface.py
from mmengine.config import read_base

with read_base():
    from .._base_.face_networks import resnet50
    from .._base_.schedules.face_35e import *

from mmcrrcd.models import Distiller

model = dict(type=Distiller, student=resnet50, input_size=112, data_preprocessor=data_preprocessor)
