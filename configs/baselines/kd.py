# python tools/train.py configs/baselines/kd.py
from mmengine.config import read_base

with read_base():
    from ..crrcd.resnet56_resnet20_cifar100 import *     # another pair: another name here

from mmcrrcd.models import Distiller, KDLoss

model.update(type=Distiller, cls_weight=0.1, objective=dict(kd=dict(type=KDLoss, weight=0.9)))
