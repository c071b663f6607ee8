# python tools/train.py configs/demo/teacher.py --work-dir work_dirs/demo/teacher
from mmengine.config import read_base

with read_base():
    from ._base_ import *

from mmcrrcd.models import Distiller

model = dict(type=Distiller, student=teacher, data_preprocessor=data_preprocessor)
