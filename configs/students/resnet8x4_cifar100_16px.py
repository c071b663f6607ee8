# python tools/train.py configs/students/resnet8x4_cifar100_16px.py
from mmengine.config import read_base

with read_base():
    from .resnet8x4_cifar100 import *

model.data_preprocessor.update(resolution=16)
