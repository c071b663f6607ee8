# python tools/train.py configs/face/resnet18_webface_16px.py
from mmengine.config import read_base

with read_base():
    from .._base_.face_networks import resnet18_16px
    from .._base_.schedules.face_35e import *

from mmcrrcd.models import Distiller

data_preprocessor.update(resolution=16)
model = dict(type=Distiller, student=resnet18_16px, input_size=112, data_preprocessor=data_preprocessor)
