"""CIFAR-100 as arrays: the in-memory pipeline. Crop, flip and reduction of the resolution are in the preprocessor."""
from mmengine.dataset import DefaultSampler

from mmcrrcd.datasets import CIFAR100Arrays, whole_batch
from mmcrrcd.evaluation import BatchAccuracy
from mmcrrcd.models import PairPreprocessor

data_preprocessor = dict(
    type=PairPreprocessor,
    mean=[129.31, 124.11, 112.40],                       # .5071, .4867, .4408 of 255
    std=[68.21, 65.41, 70.41],                           # .2675, .2565, .2761 of 255
    padding=4,
    flip=0.5)
train_dataloader = dict(
    batch_size=96,
    num_workers=0,
    dataset=dict(type=CIFAR100Arrays, data_root='data/cifar100', split='train', device='auto'),
    sampler=dict(type=DefaultSampler, shuffle=True),
    collate_fn=dict(type=whole_batch))
val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    dataset=dict(type=CIFAR100Arrays, data_root='data/cifar100', split='test', device='auto'),
    sampler=dict(type=DefaultSampler, shuffle=False),
    collate_fn=dict(type=whole_batch))
test_dataloader = val_dataloader
val_evaluator = dict(type=BatchAccuracy, topk=(1, 5))
test_evaluator = val_evaluator
val_cfg = dict()
test_cfg = dict()
