"""SVHN's cropped digits as arrays, 73,257 for training. No mirroring: a mirrored 2 is no 2."""
from mmengine.dataset import DefaultSampler

from mmcrrcd.datasets import SVHNArrays, whole_batch
from mmcrrcd.evaluation import BatchAccuracy
from mmcrrcd.models import PairPreprocessor

data_preprocessor = dict(
    type=PairPreprocessor,
    mean=[111.61, 113.17, 120.56],                       # .4377, .4438, .4728 of 255
    std=[50.49, 51.26, 50.24],                           # .1980, .2010, .1970 of 255
    padding=4)
train_dataloader = dict(
    batch_size=96,
    num_workers=0,
    dataset=dict(type=SVHNArrays, data_root='data/svhn', split='train', device='auto'),
    sampler=dict(type=DefaultSampler, shuffle=True),
    collate_fn=dict(type=whole_batch))
val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    dataset=dict(type=SVHNArrays, data_root='data/svhn', split='test', device='auto'),
    sampler=dict(type=DefaultSampler, shuffle=False),
    collate_fn=dict(type=whole_batch))
test_dataloader = val_dataloader
val_evaluator = dict(type=BatchAccuracy, topk=(1, 5))
test_evaluator = val_evaluator
val_cfg = dict()
test_cfg = dict()
