"""The paper's recipe: batch 96, learning rate 0.05 x 0.1 after epochs 21, 28 and 32. The rest is not given there."""
from mmengine.config import read_base
from mmengine.optim import MultiStepLR, OptimWrapper
from torch.optim import SGD

with read_base():
    from ..datasets.cifar100 import *                    # or cifar100_mmpretrain

train_dataloader.update(batch_size=96)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.05, momentum=0.9, weight_decay=5e-4))
param_scheduler = dict(type=MultiStepLR, by_epoch=True, milestones=[21, 28, 32], gamma=0.1)
auto_scale_lr = dict(base_batch_size=96)                # of all processes; for tools/train.py --auto-scale-lr
train_cfg = dict(by_epoch=True, max_epochs=35, val_interval=1)
