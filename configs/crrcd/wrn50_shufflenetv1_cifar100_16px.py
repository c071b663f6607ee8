# python tools/train.py configs/crrcd/wrn50_shufflenetv1_cifar100_16px.py
from mmengine.config import read_base

with read_base():
    from .wrn50_shufflenetv1_cifar100 import *

model.data_preprocessor.update(resolution=16)
