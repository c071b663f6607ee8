# python tools/train.py configs/custom/student_16px_resnet50_teacher.py --cfg-options data_root=my_images
#     (after configs/custom/teacher_resnet50_224px.py; or model.teacher_checkpoint=FILE, a ResNet50 trained by mmpretrain)
from mmengine.config import read_base

with read_base():
    from .student_16px import *

from mmpretrain.models import GlobalAveragePooling, ImageClassifier, LinearClsHead, ResNet

teacher_config = 'configs/custom/teacher_resnet50_224px.py'
model.teacher = dict(
    type=ImageClassifier,
    backbone=dict(type=ResNet, depth=50),
    neck=dict(type=GlobalAveragePooling),
    head=dict(type=LinearClsHead, num_classes=None, in_channels=2048))
model.update(teacher_checkpoint='work_dirs/{data}/teacher_resnet50_224px', input_size=224)
train_dataloader.dataset.update(image_size=224)
val_dataloader.dataset.update(image_size=224)
test_dataloader.dataset.update(image_size=224)
