# python tools/train.py configs/baselines/dkd.py
from mmengine.config import read_base

with read_base():
    from ..crrcd.resnet56_resnet20_cifar100 import *     # another pair: another name here

from mmcrrcd.models import DKDLoss, Distiller

# A warm-up over 20 epochs. Published values of beta: 2 for this pair and resnet110 -> resnet32, 6 for vgg13 and, with
# a WRN as student, wrn40_2 as teachers, else 8.
model.update(type=Distiller, cls_weight=1, objective=dict(dkd=dict(type=DKDLoss, weight=[(0, 0.05), (19, 1)], beta=2)))
