# python tools/train.py configs/low_resolution/vgg8_vgg8_tinyimagenet_8to64px.py
from mmengine.config import read_base

with read_base():
    from .vgg8_vgg8_tinyimagenet_8px import *

# One of these for each batch. Tested at 16×16 px; --cfg-options model.data_preprocessor.resolution=8 tests at another.
model.data_preprocessor.update(train_resolutions=[8, 16, 24, 32, 48, 64], resolution=16)
