# python tools/train.py configs/face/iresnet18_resnet18_lfw_16px_kd.py
from mmengine.config import read_base

with read_base():
    from .iresnet18_resnet18_lfw_16px import *

from mmcrrcd.models import Distiller, KDLoss

model.update(type=Distiller, objective=dict(kd=dict(type=KDLoss, weight=0.5)))    # CRRCD's alpha
del model['alpha'], model['beta'], model['backbone_gradient']          # of CRRCD
