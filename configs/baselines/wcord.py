# python tools/train.py configs/baselines/wcord.py
from mmengine.config import read_base

with read_base():
    from ..crrcd.resnet56_resnet20_cifar100 import *     # another pair: another name here

from mmcrrcd.models import Distiller, WCoRDLoss

# The weight is ours: the published one was not at hand.
model.update(type=Distiller, cls_weight=1, objective=dict(wcord=dict(type=WCoRDLoss, weight=1)))
