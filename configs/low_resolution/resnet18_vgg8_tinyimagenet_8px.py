# python tools/train.py configs/low_resolution/resnet18_vgg8_tinyimagenet_8px.py
from mmengine.config import read_base

with read_base():
    from .._base_.networks import resnet18, vgg8
    from .._base_.runtime import *
    from .._base_.schedules.paper_35e import *
    from .._base_.datasets.tiny_imagenet import *        # in place of the data that the schedule brings along

from mmcrrcd.models import CRRCD

resnet18.head.update(num_classes=200)
vgg8.head.update(num_classes=200)
data_preprocessor.update(resolution=8)
teacher_config = 'configs/teachers/resnet18_tinyimagenet.py'
model = dict(
    type=CRRCD,
    teacher=resnet18,
    teacher_checkpoint='work_dirs/resnet18_tinyimagenet',
    student=vgg8,
    input_size=64,
    data_preprocessor=data_preprocessor)
