# python tools/train.py configs/crrcd/densenet100_vgg8_cifar100.py
from mmengine.config import read_base

with read_base():
    from .._base_.networks import densenet100
    from .resnet56_vgg8_cifar100 import *

from mmcrrcd.models import PlainNetwork

teacher_config = 'configs/teachers/densenet100_cifar100.py'
model['teacher'] = dict(type=PlainNetwork, network=densenet100, mean=[125.3, 123.0, 113.9], std=[51.6, 50.8, 51.3])
model.update(teacher_checkpoint='work_dirs/densenet100_cifar100')
