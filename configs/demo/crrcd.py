# python tools/train.py configs/demo/crrcd.py --work-dir work_dirs/demo/crrcd     (after configs/demo/teacher.py)
from mmengine.config import read_base

with read_base():
    from ._base_ import *

from mmcrrcd.models import CRRCD

data_preprocessor.update(resolution=8)
model = dict(
    type=CRRCD, alpha=0.5, beta=0.2, backbone_gradient=1,       # the default is for SGD
    teacher=teacher,
    teacher_checkpoint='work_dirs/demo/teacher',
    student=student,
    data_preprocessor=data_preprocessor)
