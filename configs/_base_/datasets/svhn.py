"""SVHN's cropped digits as arrays, 73,257 for training. No mirroring: a mirrored 2 is no 2."""
from mmengine.config import read_base

from mmcrrcd.datasets import SVHNArrays

with read_base():
    from .cifar100 import *

data_preprocessor.update(
    mean=[111.61, 113.17, 120.56],                       # .4377, .4438, .4728 of 255
    std=[50.49, 51.26, 50.24],                           # .1980, .2010, .1970 of 255
    padding=4,
    flip=0.0)
train_dataloader.dataset = dict(type=SVHNArrays, data_root='data/svhn', split='train', device='auto')
val_dataloader.dataset = dict(type=SVHNArrays, data_root='data/svhn', split='test', device='auto')
test_dataloader = val_dataloader
