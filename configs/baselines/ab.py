# python tools/train.py configs/baselines/ab.py
from mmengine.config import read_base

with read_base():
    from ..crrcd.resnet56_resnet20_cifar100 import *     # another pair: another name here

from mmcrrcd.models import ABLoss, Distiller

# 30 epochs of AB alone, then 240 of classification alone.
model.update(
    type=Distiller,
    cls_weight=[(0, 0), (30, 0), (30, 1)],
    objective=dict(ab=dict(type=ABLoss, weight=[(0, 1), (30, 1), (30, 0)])))
train_cfg.update(max_epochs=30 + 240)
param_scheduler.update(milestones=[30 + 150, 30 + 180, 30 + 210])
