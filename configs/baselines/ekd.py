# python tools/train.py configs/baselines/ekd.py
from mmengine.config import read_base

with read_base():
    from ..crrcd.resnet56_resnet20_cifar100 import *     # another pair: another name here

from mmcrrcd.models import EKD

# The teacher learns along. The weight, EKD's default, is ours: the published one was not at hand.
model.update(type=EKD, teacher_checkpoint=None)
