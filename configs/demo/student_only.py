# python tools/train.py configs/demo/student_only.py --work-dir work_dirs/demo/student_only
from mmengine.config import read_base

with read_base():
    from ._base_ import *

from mmcrrcd.models import Distiller

data_preprocessor.update(resolution=8)
model = dict(type=Distiller, student=student, data_preprocessor=data_preprocessor)
