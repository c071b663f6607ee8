# python tools/train.py configs/crrcd/resnet110_resnet20_cifar100.py
from mmengine.config import read_base

with read_base():
    from .._base_.networks import resnet110, resnet20
    from .._base_.runtime import *
    from .._base_.schedules.cifar_240e import *          # or paper_35e

from mmcrrcd.models import CRRCD

teacher_config = 'configs/teachers/resnet110_cifar100.py'
data_preprocessor.update(resolution=None)                # what the student sees: 8, 16, ... pixels, or None for all 32
model = dict(
    type=CRRCD,
    teacher=resnet110,
    teacher_checkpoint='work_dirs/resnet110_cifar100',
    student=resnet20,
    data_preprocessor=data_preprocessor)
