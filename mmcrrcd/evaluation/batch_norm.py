"""Batch norm statistics of one resolution, for a student whose training has left it those of several mixed."""
from collections.abc import Iterator

import torch
from mmengine.config import Config
from mmengine.device import get_device
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import Dataset

from mmcrrcd.config import kind
from mmcrrcd.errors import InputError
from mmcrrcd.generators import seed_all
from mmcrrcd.models import PairPreprocessor
from mmcrrcd.registry import DATASETS, MODELS

BATCHES, SIZE = 20, 500


def batches(preprocessor: PairPreprocessor, data: Dataset) -> Iterator[Tensor]:
    """What the student sees of BATCHES of SIZE training images."""
    for index in torch.randint(len(data), (BATCHES, SIZE)):
        yield preprocessor(data.__getitems__(index), training=True)['inputs'].low


def training_images(cfg: Config) -> Dataset:
    """Those of the training of ``cfg``, for :func:`fit_batch_norms`.

    Raises:
        InputError: that training was at one resolution, or on a pipeline.
    """
    if not (cfg.model.get('data_preprocessor') or {}).get('train_resolutions'):
        raise InputError(f'{cfg.filename} trains at one resolution: batch norm has the statistics of that already')
    dataset = cfg.train_dataloader.dataset
    dataset = dataset.dataset if kind(dataset) == 'ReplayedViews' else dataset       # of a training with a teacher cache
    if 'pipeline' in dataset:
        raise InputError(f'{cfg.filename} trains on a pipeline: the statistics of one resolution are taken from arrays only')
    return DATASETS.build(dataset)


def fit_batch_norms(network: nn.Module, cfg: Config, data: Dataset, resolution: int) -> None:
    """Gives ``network``, the student of ``cfg`` on the device, the statistics of its training images at ``resolution``.

    They are those of 20 batches of 500, cropped and mirrored as in the training, the same in each call; the weights stay.
    """
    seed_all(0)
    preprocessor = MODELS.build(cfg.model.data_preprocessor | dict(train_resolutions=[resolution])).to(get_device())
    update_bn(batches(preprocessor, data), network)
