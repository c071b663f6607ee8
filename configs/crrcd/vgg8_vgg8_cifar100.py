# python tools/train.py configs/crrcd/vgg8_vgg8_cifar100.py
from mmengine.config import read_base

with read_base():
    from .._base_.networks import vgg8
    from .._base_.runtime import *
    from .._base_.schedules.cifar_240e import *          # or paper_35e

from mmcrrcd.models import CRRCD

teacher_config = 'configs/teachers/vgg8_cifar100.py'
data_preprocessor.update(resolution=None)                # what the student sees: 8, 16, ... pixels, or None for all 32
model = dict(
    type=CRRCD,
    teacher=vgg8,
    teacher_checkpoint='work_dirs/vgg8_cifar100',
    student=vgg8,
    data_preprocessor=data_preprocessor)
