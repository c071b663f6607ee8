"""CASIA-WebFace, aligned to 112×112 px, in a folder for each of its 10,575 people.

Mirrored in training, nothing else. No validation: the tests are of other people, but for some whom CASIA-WebFace shares with
LFW (docs/data.md), and whom the field's numbers leave in.
"""
from mmengine.dataset import DefaultSampler

from mmcrrcd.datasets import FaceFolder, whole_batch
from mmcrrcd.models import PairPreprocessor

data_preprocessor = dict(type=PairPreprocessor, mean=[127.5] * 3, std=[127.5] * 3, flip=0.5)
train_dataloader = dict(
    batch_size=96,
    num_workers=0,
    dataset=dict(type=FaceFolder, data_root='data/casia_webface', image_size=112),
    sampler=dict(type=DefaultSampler, shuffle=True),
    collate_fn=dict(type=whole_batch),
    drop_last=True)                                      # a batch of one image would stop the last BN of the embedding
val_dataloader = val_evaluator = val_cfg = None
test_dataloader = test_evaluator = test_cfg = None
