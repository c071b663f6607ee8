# python tools/train.py configs/baselines/dist.py
from mmengine.config import read_base

with read_base():
    from ..crrcd.resnet56_resnet20_cifar100 import *     # another pair: another name here

from mmcrrcd.models import Distiller, DISTLoss

model.update(type=Distiller, cls_weight=1, objective=dict(dist=dict(type=DISTLoss, weight=1)))
