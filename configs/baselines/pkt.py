# python tools/train.py configs/baselines/pkt.py
from mmengine.config import read_base

with read_base():
    from ..crrcd.resnet56_resnet20_cifar100 import *     # another pair: another name here

from mmcrrcd.models import Distiller, PKTLoss

model.update(type=Distiller, cls_weight=1, objective=dict(pkt=dict(type=PKTLoss, weight=30_000)))
