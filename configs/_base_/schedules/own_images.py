"""A recipe that suits most data: AdamW with a cosine, 100 epochs of batches of 64."""
from mmengine.config import read_base
from mmengine.optim import CosineAnnealingLR, OptimWrapper
from torch.optim import AdamW

with read_base():
    from ..datasets.own_images import *

optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=AdamW, lr=1e-3, weight_decay=0.05))
param_scheduler = dict(type=CosineAnnealingLR, eta_min=0, convert_to_iter_based=True)
auto_scale_lr = dict(base_batch_size=64)                 # of all processes; for tools/train.py --auto-scale-lr
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
