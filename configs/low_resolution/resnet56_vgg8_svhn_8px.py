# python tools/train.py configs/low_resolution/resnet56_vgg8_svhn_8px.py
from mmengine.config import read_base

with read_base():
    from .._base_.networks import resnet56, vgg8
    from .._base_.runtime import *
    from .._base_.schedules.paper_35e import *
    from .._base_.datasets.svhn import *                 # in place of the data that the schedule brings along

from mmcrrcd.models import CRRCD

# Table III of the paper: the teacher sees 32×32 px.
resnet56.head.update(num_classes=10)
vgg8.head.update(num_classes=10)
data_preprocessor.update(resolution=8)
teacher_config = 'configs/teachers/resnet56_svhn.py'
model = dict(
    type=CRRCD,
    teacher=resnet56,
    teacher_checkpoint='work_dirs/resnet56_svhn',
    student=vgg8,
    data_preprocessor=data_preprocessor)
