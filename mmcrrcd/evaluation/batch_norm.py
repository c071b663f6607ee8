"""Batch norm statistics of one resolution, for a student whose training has left it those of several mixed."""
from collections.abc import Iterator

import torch
from mmengine.config import Config
from mmengine.device import get_device
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from mmcrrcd.engine import seed_all
from mmcrrcd.errors import InputError
from mmcrrcd.models import PairPreprocessor
from mmcrrcd.registry import DATASETS, MODELS

BATCHES, SIZE = 20, 500


def batches(preprocessor: PairPreprocessor, data) -> Iterator[Tensor]:
    """What the student sees of BATCHES of SIZE training images."""
    for index in torch.randint(len(data), (BATCHES, SIZE)):
        yield preprocessor(data.__getitems__(index), training=True)['inputs'].low


def fit_batch_norms(network: nn.Module, cfg: Config, resolution: int) -> None:
    """Gives ``network``, the student of ``cfg`` on the device, the statistics of training images at ``resolution``.

    They are those of 20 batches of 500, cropped and mirrored as in the training, the same in each call; the weights stay.

    Raises:
        InputError: the training of ``cfg`` was at one resolution, or on a pipeline.
    """
    settings = cfg.model.get('data_preprocessor') or {}
    if not settings.get('train_resolutions'):
        raise InputError(f'{cfg.filename} trains at one resolution: batch norm has the statistics of that already')
    if 'pipeline' in cfg.train_dataloader.dataset:
        raise InputError(f'{cfg.filename} trains on a pipeline: the statistics of one resolution are taken from arrays only')
    seed_all(0)
    preprocessor = MODELS.build(settings | dict(train_resolutions=[resolution])).to(get_device())
    update_bn(batches(preprocessor, DATASETS.build(cfg.train_dataloader.dataset)), network)
