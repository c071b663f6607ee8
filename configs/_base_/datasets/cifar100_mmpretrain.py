"""CIFAR-100 through mmpretrain's own data set, pipeline and metric: the mmpretrain pipeline. Images are RGB in both paths."""
from mmcv.transforms import RandomFlip
from mmengine.config import read_base
from mmengine.dataset import pseudo_collate
from mmpretrain.datasets import CIFAR100
from mmpretrain.datasets.transforms import PackInputs, RandomCrop
from mmpretrain.evaluation import Accuracy

from mmcrrcd.engine import seed_worker

with read_base():
    from .cifar100 import *

# The preprocessor reduces the resolution of this path, too. To do it in the workers, or to reduce in another way in
# training than in tests, put dict(type=ResolutionPair, resolution=8) before PackInputs, in both pipelines.
pack = dict(type=PackInputs, algorithm_keys=('img_low',))
train_pipeline = [dict(type=RandomCrop, crop_size=32, padding=4), dict(type=RandomFlip, prob=0.5), pack]
workers = dict(num_workers=2, worker_init_fn=dict(type=seed_worker), collate_fn=dict(type=pseudo_collate))
train_dataloader.update(**workers)
train_dataloader.dataset = dict(type=CIFAR100, data_root='data/cifar100', split='train', pipeline=train_pipeline)
val_dataloader.update(**workers)
val_dataloader.dataset = dict(type=CIFAR100, data_root='data/cifar100', split='test', pipeline=[pack])
test_dataloader = val_dataloader
val_evaluator = dict(type=Accuracy, topk=(1, 5))
test_evaluator = val_evaluator
