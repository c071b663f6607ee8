# python tools/train.py configs/baselines/fitnet.py
from mmengine.config import read_base

with read_base():
    from ..crrcd.resnet56_resnet20_cifar100 import *     # another pair: another name here

from mmcrrcd.models import Distiller, FitNetLoss

model.update(type=Distiller, cls_weight=1, objective=dict(fitnet=dict(type=FitNetLoss, weight=100)))
