"""STL-10 as arrays, 5,000 training images at 96 pixels; for one of its folds set fold of the training data."""
from mmengine.config import read_base

from mmcrrcd.datasets import STL10Arrays

with read_base():
    from .cifar100 import *

data_preprocessor.update(
    mean=[113.91, 112.15, 103.68],                       # .4467, .4398, .4066 of 255
    std=[66.38, 65.43, 69.18],                           # .2603, .2566, .2713 of 255
    padding=12)
train_dataloader.dataset = dict(type=STL10Arrays, data_root='data/stl10', split='train', device='auto')
val_dataloader.dataset = dict(type=STL10Arrays, data_root='data/stl10', split='test', device='auto')
test_dataloader = val_dataloader
