# python tools/train.py configs/low_resolution/vgg8_vgg8_tinyimagenet_8px.py
from mmengine.config import read_base

with read_base():
    from .resnet18_vgg8_tinyimagenet_8px import *

# The same network at 64×64 px teaches.
teacher_config = 'configs/teachers/vgg8_tinyimagenet.py'
model.teacher = vgg8
model.teacher_checkpoint = 'work_dirs/vgg8_tinyimagenet'
