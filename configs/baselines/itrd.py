# python tools/train.py configs/baselines/itrd.py
from mmengine.config import read_base

with read_base():
    from ..crrcd.resnet56_resnet20_cifar100 import *     # another pair: another name here

from mmcrrcd.models import Distiller, ITRDLoss

# The weights of its two parts are published for wrn_40_2 -> wrn_16_2.
model.update(type=Distiller, cls_weight=1, objective=dict(itrd=dict(type=ITRDLoss, weight=1, correlation=2, mutual=1)))
