# python tools/train.py configs/students/resnet20_cifar100_16px.py
from mmengine.config import read_base

with read_base():
    from .resnet20_cifar100 import *
    from .._base_.schedules.warm_40e import *            # in place of the longer one that the network's config brings along

model.data_preprocessor.update(resolution=16)
