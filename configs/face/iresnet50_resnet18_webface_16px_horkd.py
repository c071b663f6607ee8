# python tools/train.py configs/face/iresnet50_resnet18_webface_16px_horkd.py
from mmengine.config import read_base

with read_base():
    from .iresnet50_resnet18_webface_16px import *

from mmcrrcd.models import Distiller, HORKDLoss

# The weight is ours: the published one was not at hand.
model.update(type=Distiller, objective=dict(horkd=dict(type=HORKDLoss, weight=1)))
del model['alpha'], model['beta'], model['backbone_gradient']          # of CRRCD
