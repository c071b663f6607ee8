# python tools/train.py configs/baselines/simkd.py
from mmengine.config import read_base

with read_base():
    from ..crrcd.resnet56_resnet20_cifar100 import *     # another pair: another name here

from mmcrrcd.models import SimKD

model.update(type=SimKD)
