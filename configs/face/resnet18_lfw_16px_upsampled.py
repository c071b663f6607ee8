# python tools/train.py configs/face/resnet18_lfw_16px_upsampled.py
from mmengine.config import read_base

with read_base():
    from .resnet18_lfw_16px import *
    from .._base_.face_networks import resnet18

# The small image is upsampled to 64×64 px again, for a student that is made for them.
resnet18.head.update(num_classes=1334)
resnet18.neck.update(map_size=4)
model.update(student=resnet18)
model.data_preprocessor.update(upsample=True)
