# python tools/train.py configs/baselines/sskd.py
from mmengine.config import read_base

with read_base():
    from ..crrcd.resnet56_resnet20_cifar100 import *     # another pair: another name here

from mmengine.optim import MultiStepLR

from mmcrrcd.models import SSKD

# 60 epochs for the teacher's head, then 240 for the student, from the first learning rate again. The weights are SSKD's
# defaults. For students with a first rate of 0.01, the ShuffleNets, the published rate of the head is 0.05 all the same.
model.update(type=SSKD, head_epochs=60)
train_cfg.update(max_epochs=60 + 240)
param_scheduler = [
    dict(type=MultiStepLR, by_epoch=True, milestones=[30, 45, 60 + 150, 60 + 180, 60 + 210], gamma=0.1),
    dict(type=MultiStepLR, by_epoch=True, milestones=[60], gamma=100)]
