# python tools/train.py configs/face/iresnet50_resnet18_webface_16px_upsampled.py
from mmengine.config import read_base

with read_base():
    from .iresnet50_resnet18_webface_16px import *
    from .._base_.face_networks import resnet18

# The small image is upsampled to 112×112 px again, for a student that is made for them.
model.update(student=resnet18)
model.data_preprocessor.update(upsample=True)
