# python tools/train.py configs/low_resolution/resnet56_vgg8_cifar100_8to32px.py
from mmengine.config import read_base

with read_base():
    from .resnet56_vgg8_cifar100_8px import *

# One of these for each batch. Tested at 16×16 px; --cfg-options model.data_preprocessor.resolution=8 tests at another.
model.data_preprocessor.update(train_resolutions=[8, 12, 16, 24, 32], resolution=16, upsample=False)
