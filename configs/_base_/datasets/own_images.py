"""Images of one's own at 64×64 px, in memory-mapped arrays: a folder for each class, or what else ImageFolder takes."""
from mmengine.dataset import DefaultSampler

from mmcrrcd.datasets import ImageFolder, whole_batch
from mmcrrcd.evaluation import BatchAccuracy
from mmcrrcd.models import PairPreprocessor

data_root = 'my_images'
# The one place of mean and std (ImageNet's) and of the channels' order (RGB), for teacher and student.
data_preprocessor = dict(
    type=PairPreprocessor, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], crop_scale=(0.25, 1.0), flip=0.5)
train_dataloader = dict(
    batch_size=64, num_workers=0, drop_last=True, collate_fn=dict(type=whole_batch),
    dataset=dict(type=ImageFolder, data_root=data_root, split='train', image_size=64, device='auto'),
    sampler=dict(type=DefaultSampler, shuffle=True))
val_dataloader = dict(
    batch_size=256, num_workers=0, collate_fn=dict(type=whole_batch),
    dataset=dict(type=ImageFolder, data_root=data_root, split='val', image_size=64, device='auto'),
    sampler=dict(type=DefaultSampler, shuffle=False))
test_dataloader = dict(val_dataloader, dataset=dict(val_dataloader['dataset'], split='test'))
val_evaluator = test_evaluator = dict(type=BatchAccuracy, topk=(1, ))
val_cfg = test_cfg = dict()
