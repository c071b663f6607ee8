"""The 240-epoch recipe of the published tables (batch 64). For mobile networks see cifar_240e_mobile."""
from mmengine.config import read_base
from mmengine.optim import MultiStepLR, OptimWrapper
from torch.optim import SGD

with read_base():
    from ..datasets.cifar100 import *                    # or cifar100_mmpretrain

train_dataloader.update(batch_size=64)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.05, momentum=0.9, weight_decay=5e-4))
param_scheduler = dict(type=MultiStepLR, by_epoch=True, milestones=[150, 180, 210], gamma=0.1)
auto_scale_lr = dict(base_batch_size=64)                # of all processes; for tools/train.py --auto-scale-lr
train_cfg = dict(by_epoch=True, max_epochs=240, val_interval=1)
