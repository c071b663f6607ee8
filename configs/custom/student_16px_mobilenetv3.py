# python tools/train.py configs/custom/student_16px_mobilenetv3.py --train-teacher --cfg-options data_root=my_images
from mmengine.config import read_base

with read_base():
    from .student_16px import *
    from .._base_.own_networks import mobilenetv3

model.update(student=mobilenetv3)
model.data_preprocessor.update(upsample=True)            # to 64×64 px: the network divides a side by 32
