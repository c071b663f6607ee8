# python tools/train.py configs/face/iresnet18_resnet18_lfw_16px.py
from mmengine.config import read_base

with read_base():
    from .._base_.face_networks import iresnet18, resnet18_16px
    from .._base_.schedules.face_35e import *
    from .._base_.datasets.lfw import *                  # in place of the data that the schedule brings along

from mmcrrcd.models import CRRCD

iresnet18.head.update(num_classes=1334)
iresnet18.neck.update(map_size=4)
resnet18_16px.head.update(num_classes=1334)
data_preprocessor.update(resolution=16)
teacher_config = 'configs/face/iresnet18_lfw.py'
model = dict(
    type=CRRCD, alpha=0.5, beta=0.2, backbone_gradient=1,    # the default's are chosen for softmax heads
    teacher=iresnet18,
    teacher_checkpoint='work_dirs/iresnet18_lfw',
    student=resnet18_16px,
    input_size=64,
    data_preprocessor=data_preprocessor)
