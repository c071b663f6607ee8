# python tools/train.py configs/custom/teacher_resnet50_224px.py --cfg-options data_root=my_images \
#     model.student.backbone.init_cfg.checkpoint=resnet50.pth
from mmengine.config import read_base

with read_base():
    from .teacher_64px import *

from mmpretrain.models import GlobalAveragePooling, ImageClassifier, LinearClsHead, ResNet

# Fine-tuned from weights that you have. As torchvision publishes them; of mmpretrain's say init_cfg.prefix='backbone.'
model.student = dict(
    type=ImageClassifier,
    backbone=dict(type=ResNet, depth=50, init_cfg=dict(type='Pretrained', checkpoint='resnet50.pth')),
    neck=dict(type=GlobalAveragePooling),
    head=dict(type=LinearClsHead, num_classes=None, in_channels=2048))
train_dataloader.dataset.update(image_size=224)
val_dataloader.dataset.update(image_size=224)
test_dataloader.dataset.update(image_size=224)
optim_wrapper.optimizer.update(lr=1e-4)
train_cfg.update(max_epochs=20)
