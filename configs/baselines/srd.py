# python tools/train.py configs/baselines/srd.py
from mmengine.config import read_base

with read_base():
    from ..crrcd.resnet56_resnet20_cifar100 import *     # another pair: another name here

from mmcrrcd.models import Distiller, SRDLoss

# No recipe for CIFAR is published.
model.update(type=Distiller, cls_weight=1, objective=dict(srd=dict(type=SRDLoss, weight=1)))
