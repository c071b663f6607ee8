# python tools/train.py configs/baselines/cc.py
from mmengine.config import read_base

with read_base():
    from ..crrcd.resnet56_resnet20_cifar100 import *     # another pair: another name here

from mmcrrcd.models import CCLoss, Distiller

model.update(type=Distiller, cls_weight=1, objective=dict(cc=dict(type=CCLoss, weight=0.02)))
