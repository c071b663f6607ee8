# python tools/train.py configs/baselines/wttm.py
from mmengine.config import read_base

with read_base():
    from ..crrcd.resnet56_resnet20_cifar100 import *     # another pair: another name here

from mmcrrcd.models import Distiller, WTTMLoss

# These constants are published for vgg13 -> vgg8; those of this pair were not at hand.
model.update(type=Distiller, cls_weight=1, objective=dict(wttm=dict(type=WTTMLoss, weight=45, gamma=0.1)))
