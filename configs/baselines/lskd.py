# python tools/train.py configs/baselines/lskd.py
from mmengine.config import read_base

with read_base():
    from ..crrcd.resnet56_resnet20_cifar100 import *     # another pair: another name here

from mmcrrcd.models import Distiller, LSKDLoss

# Published for vgg13 -> vgg8: a temperature of 3; for resnet110 -> resnet20: 4, with a weight of 12.
model.update(type=Distiller, cls_weight=0.1, objective=dict(lskd=dict(type=LSKDLoss, weight=9)))
