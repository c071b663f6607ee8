# python tools/train.py configs/crrcd/resnet56_resnet20_cifar100_16px.py --cache-teacher 8
from mmengine.config import read_base

with read_base():
    from .resnet56_resnet20_cifar100 import *
    from .._base_.schedules.warm_40e import *            # in place of the longer one that the pair's config brings along

model.data_preprocessor.update(resolution=16)
model.update(backbone_gradient=0.1)                      # as at 8×8 px
