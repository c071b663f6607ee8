# python tools/train.py configs/custom/student_16px_own_teacher.py --cfg-options data_root=my_images \
#     model.teacher_checkpoint=resnet50.pth
from mmengine.config import read_base

with read_base():
    from .student_16px import *

from mmcrrcd.models import PlainNetwork

# A network that knows these classes, in this order, by the name that Python imports it by. Others than torchvision's:
#     dict(type='timm.create_model', model_name='vit_small_patch16_224', num_classes=None)
#     dict(type='transformers.AutoModelForImageClassification.from_pretrained', pretrained_model_name_or_path=FOLDER)
teacher_config = None
network = dict(type='torchvision.models.resnet50', num_classes=None)
model.update(teacher_checkpoint='resnet50.pth', input_size=224)
model.teacher = dict(type=PlainNetwork, network=network)
model.data_preprocessor.update(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])      # of its images, from 0 to 255
train_dataloader.dataset.update(image_size=224)
val_dataloader.dataset.update(image_size=224)
test_dataloader.dataset.update(image_size=224)
