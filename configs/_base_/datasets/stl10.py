"""STL-10 as arrays, 5,000 training images at 96 pixels; for one of its folds set fold of the training data."""
from mmengine.dataset import DefaultSampler

from mmcrrcd.datasets import STL10Arrays, whole_batch
from mmcrrcd.evaluation import BatchAccuracy
from mmcrrcd.models import PairPreprocessor

data_preprocessor = dict(
    type=PairPreprocessor,
    mean=[113.91, 112.15, 103.68],                       # .4467, .4398, .4066 of 255
    std=[66.38, 65.43, 69.18],                           # .2603, .2566, .2713 of 255
    padding=12,
    flip=0.5)
train_dataloader = dict(
    batch_size=96,
    num_workers=0,
    dataset=dict(type=STL10Arrays, data_root='data/stl10', split='train', device='auto'),
    sampler=dict(type=DefaultSampler, shuffle=True),
    collate_fn=dict(type=whole_batch))
val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    dataset=dict(type=STL10Arrays, data_root='data/stl10', split='test', device='auto'),
    sampler=dict(type=DefaultSampler, shuffle=False),
    collate_fn=dict(type=whole_batch))
test_dataloader = val_dataloader
val_evaluator = dict(type=BatchAccuracy, topk=(1, 5))
test_evaluator = val_evaluator
val_cfg = dict()
test_cfg = dict()
