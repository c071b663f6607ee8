# python tools/train.py configs/students/shufflenetv1_cifar100_8px.py
from mmengine.config import read_base

with read_base():
    from .shufflenetv1_cifar100 import *

model.data_preprocessor.update(resolution=8)
