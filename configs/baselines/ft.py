# python tools/train.py configs/baselines/ft.py
from mmengine.config import read_base

with read_base():
    from ..crrcd.resnet56_resnet20_cifar100 import *     # another pair: another name here

from mmengine.optim import MultiStepLR

from mmcrrcd.models import Distiller, FTLoss

# 30 epochs for the paraphraser, with a fifth of the learning rate where the student is a resnet or wrn; then 240 for the
# student.
model.update(
    type=Distiller,
    cls_weight=[(0, 0), (30, 0), (30, 1)],
    objective=dict(ft=dict(type=FTLoss, weight=[(0, 1), (30, 1), (30, 200)], paraphraser_epochs=30)))
train_cfg.update(max_epochs=30 + 240)
param_scheduler.update(milestones=[30 + 150, 30 + 180, 30 + 210])
param_scheduler = [
    param_scheduler,
    dict(type=MultiStepLR, by_epoch=True, milestones=[0], gamma=0.2),
    dict(type=MultiStepLR, by_epoch=True, milestones=[30], gamma=5)]
