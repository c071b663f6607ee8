# python tools/train.py configs/custom/teacher_64px.py --cfg-options data_root=my_images
from mmengine.config import read_base

with read_base():
    from .._base_.own_networks import resnet18_64px
    from .._base_.runtime import *
    from .._base_.schedules.own_images import *

from mmcrrcd.models import Distiller

model = dict(type=Distiller, student=resnet18_64px, data_preprocessor=data_preprocessor)
