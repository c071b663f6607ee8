# python tools/train.py configs/baselines/rkd.py
from mmengine.config import read_base

with read_base():
    from ..crrcd.resnet56_resnet20_cifar100 import *     # another pair: another name here

from mmcrrcd.models import Distiller, RKDLoss

model.update(type=Distiller, cls_weight=1, objective=dict(rkd=dict(type=RKDLoss, weight=1)))
