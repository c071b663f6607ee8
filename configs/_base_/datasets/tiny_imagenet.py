"""Tiny ImageNet as arrays, 200 classes at 64 pixels, tested on its validation images."""
from mmengine.dataset import DefaultSampler

from mmcrrcd.datasets import TinyImageNetArrays, whole_batch
from mmcrrcd.evaluation import BatchAccuracy
from mmcrrcd.models import PairPreprocessor

data_preprocessor = dict(
    type=PairPreprocessor,
    mean=[122.45, 114.27, 101.36],                       # .4802, .4481, .3975 of 255
    std=[70.64, 68.62, 71.94],                           # .2770, .2691, .2821 of 255
    padding=8,
    flip=0.5)
train_dataloader = dict(
    batch_size=96,
    num_workers=0,
    dataset=dict(type=TinyImageNetArrays, data_root='data/tinyimagenet', split='train', device='auto'),
    sampler=dict(type=DefaultSampler, shuffle=True),
    collate_fn=dict(type=whole_batch))
val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    dataset=dict(type=TinyImageNetArrays, data_root='data/tinyimagenet', split='val', device='auto'),
    sampler=dict(type=DefaultSampler, shuffle=False),
    collate_fn=dict(type=whole_batch))
test_dataloader = val_dataloader
val_evaluator = dict(type=BatchAccuracy, topk=(1, 5))
test_evaluator = val_evaluator
val_cfg = dict()
test_cfg = dict()
