"""Generated letters and digits, a teacher for 32×32 px and a student for 8; what all trainings of the demo share."""
from mmengine.config import read_base
from mmengine.dataset import DefaultSampler
from mmengine.optim import CosineAnnealingLR
from torch.optim import AdamW

with read_base():
    from .._base_.networks import pool
    from .._base_.runtime import *

from mmpretrain.models import ImageClassifier, LinearClsHead

from mmcrrcd.datasets import GlyphArrays, whole_batch
from mmcrrcd.engine import BF16OptimWrapper
from mmcrrcd.evaluation import BatchAccuracy
from mmcrrcd.models import PairPreprocessor, ResNetCIFAR

teacher = dict(
    type=ImageClassifier, neck=pool,
    backbone=dict(type=ResNetCIFAR, depth=8),
    head=dict(type=LinearClsHead, num_classes=40, in_channels=64, init_cfg=None))
student = dict(
    type=ImageClassifier, neck=pool,
    backbone=dict(type=ResNetCIFAR, depth=8),
    head=dict(type=LinearClsHead, num_classes=40, in_channels=64, init_cfg=None))

# No mirroring: a mirrored b is a d.
data_preprocessor = dict(type=PairPreprocessor, mean=[128.0] * 3, std=[64.0] * 3, padding=2)
# Few images on purpose: with 8,000 of them, over 12 epochs, the student with KD was no better than the one alone.
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    dataset=dict(type=GlyphArrays, split='train', num_images=3000),
    sampler=dict(type=DefaultSampler, shuffle=True),
    collate_fn=dict(type=whole_batch))
val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    dataset=dict(type=GlyphArrays, split='test', num_images=2000),
    sampler=dict(type=DefaultSampler, shuffle=False),
    collate_fn=dict(type=whole_batch))
test_dataloader = val_dataloader
val_evaluator = test_evaluator = dict(type=BatchAccuracy, topk=(1, ))
val_cfg = test_cfg = dict()

# Not the recipe of the papers' tables (SGD): in so few epochs AdamW gets much further.
optim_wrapper = dict(type=BF16OptimWrapper, optimizer=dict(type=AdamW, lr=3e-3, weight_decay=0.05))
param_scheduler = dict(type=CosineAnnealingLR, eta_min=0, convert_to_iter_based=True)
train_cfg = dict(by_epoch=True, max_epochs=24, val_interval=1)
