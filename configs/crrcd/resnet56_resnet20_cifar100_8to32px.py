# python tools/train.py configs/crrcd/resnet56_resnet20_cifar100_8to32px.py --cache-teacher 4
from mmengine.config import read_base

with read_base():
    from .resnet56_resnet20_cifar100 import *
    from .._base_.schedules.warm_40e import *            # in place of the longer one that the pair's config brings along

# One of these for each batch. Tested at 16×16 px; --cfg-options model.data_preprocessor.resolution=8 tests at another.
model.data_preprocessor.update(resolution=16, train_resolutions=[8, 16, 24, 32])
