# python tools/train.py configs/face/resnet18_tinyface_16px.py
from mmengine.config import read_base

with read_base():
    from .._base_.face_networks import resnet18_16px
    from .._base_.schedules.face_35e import *

from mmcrrcd.models import Distiller

# A trained student goes on with TinyFace's 2,570 people: Table VII of the paper, which does not say how. Their faces are small
# by themselves, so there is no teacher to see them large. The head, of other people, starts anew.
resnet18_16px.head.update(num_classes=2570)
resnet18_16px.update(init_cfg=dict(
    type='Pretrained', checkpoint='work_dirs/iresnet50_resnet18_webface_16px/epoch_35.pth', prefix='student'))
train_dataloader.dataset.update(data_root='data/tinyface/Training_Set', image_size=16)
optim_wrapper.optimizer.update(lr=0.002)
model = dict(type=Distiller, student=resnet18_16px, input_size=16, data_preprocessor=data_preprocessor)
