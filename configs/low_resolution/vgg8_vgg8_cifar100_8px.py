# python tools/train.py configs/low_resolution/vgg8_vgg8_cifar100_8px.py
from mmengine.config import read_base

with read_base():
    from .resnet56_vgg8_cifar100_8px import *

# The same network at 32×32 px teaches.
teacher_config = 'configs/teachers/vgg8_cifar100.py'
model.teacher = vgg8
model.teacher_checkpoint = 'work_dirs/vgg8_cifar100'
