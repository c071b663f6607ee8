# python tools/train.py configs/custom/student_16px_resnet18.py --train-teacher --cfg-options data_root=my_images
from mmengine.config import read_base

with read_base():
    from .student_16px import *
    from .._base_.own_networks import resnet18

model.update(student=resnet18)
