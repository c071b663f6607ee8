# python tools/train.py configs/custom/student_16px.py --train-teacher --cfg-options data_root=my_images
from mmengine.config import read_base

with read_base():
    from .._base_.own_networks import resnet18_64px, shufflenetv2
    from .._base_.runtime import *
    from .._base_.schedules.own_images import *

from mmcrrcd.models import CRRCD

teacher_config = 'configs/custom/teacher_64px.py'
model = dict(
    type=CRRCD, alpha=0.5, beta=0.2, backbone_gradient=1,       # the default is for SGD
    teacher=resnet18_64px,
    teacher_checkpoint='work_dirs/{data}/teacher_64px',   # {data}: the folder's name
    student=shufflenetv2,
    input_size=64,
    data_preprocessor=dict(data_preprocessor, resolution=16))
