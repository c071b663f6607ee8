# python tools/train.py configs/low_resolution/resnet56_vgg8_svhn_8px_kd.py
from mmengine.config import read_base

with read_base():
    from .resnet56_vgg8_svhn_8px import *

model.update(alpha=0.5, beta=0, backbone_gradient=1)
