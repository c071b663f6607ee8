# python tools/train.py configs/low_resolution/resnet56_vgg8_cifar100_16px.py
from mmengine.config import read_base

with read_base():
    from .resnet56_vgg8_cifar100_8px import *

model.data_preprocessor.update(resolution=16)
