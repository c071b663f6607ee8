# python tools/train.py configs/baselines/crd.py
from mmengine.config import read_base

with read_base():
    from ..crrcd.resnet56_resnet20_cifar100 import *     # another pair: another name here

from mmcrrcd.models import CRDLoss, Distiller

model.update(type=Distiller, cls_weight=1, objective=dict(crd=dict(type=CRDLoss, weight=0.8, num_samples=50_000)))
