# python tools/train.py configs/teachers/vgg8_cifar100.py
from mmengine.config import read_base

with read_base():
    from ..students.vgg8_cifar100 import *
