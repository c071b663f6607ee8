# python tools/train.py configs/face/iresnet50_resnet18_webface_16px.py
from mmengine.config import read_base

with read_base():
    from .._base_.face_networks import iresnet50, resnet18_16px
    from .._base_.schedules.face_35e import *

from mmcrrcd.models import CRRCD

teacher_config = 'configs/face/iresnet50_webface.py'
data_preprocessor.update(resolution=16)
model = dict(
    type=CRRCD, alpha=0.5, beta=0.2, backbone_gradient=1,    # the default's are chosen for softmax heads
    teacher=iresnet50,
    teacher_checkpoint='work_dirs/iresnet50_webface',
    student=resnet18_16px,
    input_size=112,
    data_preprocessor=data_preprocessor)
