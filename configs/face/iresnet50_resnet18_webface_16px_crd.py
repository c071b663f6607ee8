# python tools/train.py configs/face/iresnet50_resnet18_webface_16px_crd.py
from mmengine.config import read_base

with read_base():
    from .iresnet50_resnet18_webface_16px import *

from mmcrrcd.models import CRDLoss, Distiller

# num_samples is the number of images: 494,414 in the whole CASIA-WebFace, less in cleaned ones.
model.update(type=Distiller, objective=dict(crd=dict(type=CRDLoss, weight=0.8, num_samples=494_414)))
del model['alpha'], model['beta'], model['backbone_gradient']          # of CRRCD
