"""The studies' recipe for small images: an epoch of warm-up, 40 in all, learning rate 0.05 x 0.1 after epochs 24, 32 and 37."""
from mmengine.config import read_base
from mmengine.optim import LinearLR, MultiStepLR, OptimWrapper
from torch.optim import SGD

with read_base():
    from ..datasets.cifar100 import *

train_dataloader.update(batch_size=96)
# fused: the same numbers, in nine tenths of a small student's step on a CPU.
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=0.05, momentum=0.9, weight_decay=5e-4, fused=True))
param_scheduler = [
    dict(type=MultiStepLR, by_epoch=True, milestones=[24, 32, 37], gamma=0.1),
    dict(type=LinearLR, start_factor=0.1, by_epoch=True, begin=0, end=1, convert_to_iter_based=True)]
auto_scale_lr = dict(base_batch_size=96)                # of all processes; for tools/train.py --auto-scale-lr
train_cfg = dict(by_epoch=True, max_epochs=40, val_interval=1)
