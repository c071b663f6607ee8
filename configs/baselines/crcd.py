# python tools/train.py configs/baselines/crcd.py
from mmengine.config import read_base

with read_base():
    from ..crrcd.resnet56_resnet20_cifar100 import *     # another pair: another name here

from mmcrrcd.models import CRCDLoss, Distiller, KDLoss

# KD and CRCD are off for the last ten epochs, as in the published code (there after 240 of 250). That goes on with a product of
# KD and the gradients' relations, which is in no formula of the paper and not here.
model.update(type=Distiller, cls_weight=1, objective=dict(
    kd=dict(type=KDLoss, weight=[(0, 0.9), (230, 0.9), (230, 0)]),
    crcd=dict(type=CRCDLoss, weight=[(0, 1), (230, 1), (230, 0)], num_samples=50_000)))
