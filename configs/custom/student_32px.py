# python tools/train.py configs/custom/student_32px.py --train-teacher --cfg-options data_root=my_images
from mmengine.config import read_base

with read_base():
    from .student_16px import *

model.data_preprocessor.update(resolution=32)
