"""LFW, to train on 1,334 people: those with two images or more who are in none of the pairs of folds 9 and 10.

The 1,200 pairs of these two folds are left for verification. pairs.txt lies beside the folder of images. 64×64 px, so that
two CPU cores train a teacher in an hour.
"""
from mmengine.config import read_base

from mmcrrcd.datasets import FaceFolder

with read_base():
    from .casia_webface import *

train_dataloader.dataset = dict(type=FaceFolder, data_root='data/lfw/lfw', image_size=64, exclude='data/lfw/pairs.txt',
                                exclude_folds=[8, 9], min_images=2)
