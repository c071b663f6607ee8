# python tools/train.py configs/low_resolution/resnet56_vgg8_cifar100_8px.py
from mmengine.config import read_base

with read_base():
    from .._base_.networks import resnet56, vgg8
    from .._base_.runtime import *
    from .._base_.schedules.paper_35e import *           # or cifar_240e

from mmcrrcd.models import CRRCD

teacher_config = 'configs/teachers/resnet56_cifar100.py'
# Upsampled to 32×32 px again, which costs 16 times the work and is the better here; upsample=False: as they are.
data_preprocessor.update(resolution=8, upsample=True)
model = dict(
    type=CRRCD,
    teacher=resnet56,
    teacher_checkpoint='work_dirs/resnet56_cifar100',
    student=vgg8,
    data_preprocessor=data_preprocessor)
