# python tools/train.py configs/crrcd/resnet32x4_resnet8x4_cifar100.py
from mmengine.config import read_base

with read_base():
    from .._base_.networks import resnet32x4, resnet8x4
    from .._base_.runtime import *
    from .._base_.schedules.cifar_240e import *          # or paper_35e

from mmcrrcd.models import CRRCD

teacher_config = 'configs/teachers/resnet32x4_cifar100.py'
data_preprocessor.update(resolution=None)                # what the student sees: 8, 16, ... pixels, or None for all 32
model = dict(
    type=CRRCD,
    teacher=resnet32x4,
    teacher_checkpoint='work_dirs/resnet32x4_cifar100',
    student=resnet8x4,
    data_preprocessor=data_preprocessor)
