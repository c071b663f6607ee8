"""Tiny ImageNet as arrays, 200 classes at 64×64 px, tested on its validation images."""
from mmengine.config import read_base

from mmcrrcd.datasets import TinyImageNetArrays

with read_base():
    from .cifar100 import *

data_preprocessor.update(
    mean=[122.45, 114.27, 101.36],                       # .4802, .4481, .3975 of 255
    std=[70.64, 68.62, 71.94],                           # .2770, .2691, .2821 of 255
    padding=8)
train_dataloader.dataset = dict(type=TinyImageNetArrays, data_root='data/tinyimagenet', split='train', device='auto')
val_dataloader.dataset = dict(type=TinyImageNetArrays, data_root='data/tinyimagenet', split='val', device='auto')
test_dataloader = val_dataloader
