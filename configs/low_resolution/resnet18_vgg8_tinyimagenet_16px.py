# python tools/train.py configs/low_resolution/resnet18_vgg8_tinyimagenet_16px.py
from mmengine.config import read_base

with read_base():
    from .resnet18_vgg8_tinyimagenet_8px import *

model.data_preprocessor.update(resolution=16)
