# python tools/train.py configs/demo/kd.py --work-dir work_dirs/demo/kd     (after configs/demo/teacher.py)
from mmengine.config import read_base

with read_base():
    from ._base_ import *

from mmcrrcd.models import Distiller, KDLoss

data_preprocessor.update(resolution=8)
model = dict(
    type=Distiller,
    teacher=teacher,
    teacher_checkpoint='work_dirs/demo/teacher',
    student=student,
    objective=dict(kd=dict(type=KDLoss, weight=0.5)),    # CRRCD's alpha
    data_preprocessor=data_preprocessor)
