# python tools/train.py configs/crrcd/wrn40_2_shufflenetv1_cifar100.py
from mmengine.config import read_base

with read_base():
    from .._base_.networks import shufflenetv1, wrn40_2
    from .._base_.runtime import *
    from .._base_.schedules.cifar_240e_mobile import *   # or paper_35e

from mmcrrcd.models import CRRCD

teacher_config = 'configs/teachers/wrn40_2_cifar100.py'
data_preprocessor.update(resolution=None)                # what the student sees: 8, 16, ... pixels, or None for all 32
model = dict(
    type=CRRCD,
    teacher=wrn40_2,
    teacher_checkpoint='work_dirs/wrn40_2_cifar100',
    student=shufflenetv1,
    data_preprocessor=data_preprocessor)
