# python tools/train.py configs/crrcd/resnet56_resnet20_cifar100_8px.py
from mmengine.config import read_base

with read_base():
    from .resnet56_resnet20_cifar100 import *

model.data_preprocessor.update(resolution=8)
