# python tools/train.py configs/low_resolution/vgg8_svhn_8px.py
from mmengine.config import read_base

with read_base():
    from .._base_.networks import vgg8
    from .._base_.runtime import *
    from .._base_.schedules.paper_35e import *
    from .._base_.datasets.svhn import *                 # in place of the data that the schedule brings along

from mmcrrcd.models import Distiller

vgg8.head.update(num_classes=10)
data_preprocessor.update(resolution=8)
model = dict(type=Distiller, student=vgg8, data_preprocessor=data_preprocessor)
