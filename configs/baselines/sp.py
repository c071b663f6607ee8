# python tools/train.py configs/baselines/sp.py
from mmengine.config import read_base

with read_base():
    from ..crrcd.resnet56_resnet20_cifar100 import *     # another pair: another name here

from mmcrrcd.models import Distiller, SPLoss

model.update(type=Distiller, cls_weight=1, objective=dict(sp=dict(type=SPLoss, weight=3000)))
