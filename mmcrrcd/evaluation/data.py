"""The images that a network is tested on: a config's own, or a public data set; and their size."""
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmcrrcd.config import kind, read_config
from mmcrrcd.datasets import ImageArrays
from mmcrrcd.datasets.transforms.student_view import Size, sides
from mmcrrcd.errors import InputError
from mmcrrcd.registry import DATASETS

NAMED = dict(cifar10='CIFAR10Arrays', cifar100='CIFAR100Arrays', stl10='STL10Arrays', svhn='SVHNArrays',
             tinyimagenet='TinyImageNetArrays', uccs='UCCSFaces')
SIDES = dict(STL10Arrays=96, TinyImageNetArrays=64, FaceFolder=112, RecordFaces=112, UCCSFaces=112)      # others: 32


def config_with_model(config: str | Config) -> Config:
    """The settings, read from a file where they are none yet. Raises InputError where they have no model."""
    cfg = read_config(config) if isinstance(config, str) else config
    if 'model' not in cfg:
        raise InputError(f'{cfg.filename} has no model')
    return cfg


def test_data(cfg: Config) -> dict:
    """The data set of the config's test, of its validation where it has no test, of its training where it has neither."""
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader') or cfg.get('train_dataloader')
    if not loader:
        raise InputError(f'{cfg.filename} has neither test_dataloader nor train_dataloader: the test data are unknown')
    return loader.dataset


def steps_of(cfg: Config) -> list[dict]:
    """The pipeline of the test data, empty where they are arrays."""
    return test_data(cfg).get('pipeline', [])


def reads_bgr(cfg: Config) -> bool:
    """Are the test images BGR, as OpenCV reads files, or RGB, as arrays are?"""
    return any(kind(step) == 'LoadImageFromFile' for step in steps_of(cfg))


def plain_size(size: Size | list[int]) -> Size:
    """One number for a square, else height and width."""
    height, width = sides(size)
    return height if height == width else (height, width)


def training_side(cfg: Config, recorded: Size | None = None) -> Size:
    """The size in pixels of the images that a config's data give to the teacher.

    An exported config states it, a checkpoint may have it ``recorded``. Otherwise it is the model's ``input_size``, or the size
    to which the pipeline crops or scales, or that of the arrays, or 32.
    """
    for size in (cfg.get('image_size'), recorded, cfg.model.get('input_size')):
        if size:
            return plain_size(size)
    sizes = [step.get('crop_size') or step.get('scale') for step in steps_of(cfg)]
    sizes = [size if isinstance(size, int) else size[::-1] for size in sizes if size]        # those are width and height
    settings = test_data(cfg)
    arrays = settings.get('arrays', settings)
    return plain_size(sizes[-1] if sizes else arrays.get('image_size') or SIDES.get(kind(arrays), 32))


def named_images(name: str, split: str, data_root: str | None = None) -> ImageArrays:
    """A public data set, 'train' or 'test', from ``data_root``, by default ``data/<name>``."""
    return DATASETS.build(dict(type=f'mmcrrcd.{NAMED[name]}', data_root=data_root or f'data/{name}', split=split))


def own_images(config: str | Config, most: int | None = None) -> ImageArrays:
    """The test images of a config at full resolution, as RGB arrays; ``most`` of a pipeline's, evenly spaced, or all."""
    cfg = config_with_model(config)
    if not cfg.get('test_dataloader') and not cfg.get('val_dataloader'):
        raise InputError(f'{cfg.filename} has no test images')
    settings = test_data(cfg)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        if 'pipeline' not in settings:
            return DATASETS.build(settings)
        steps = [step for step in steps_of(cfg) if kind(step) not in ('ResolutionPair', 'PackInputs')]
        dataset = DATASETS.build({**settings, 'pipeline': [*steps, dict(type='mmpretrain.PackInputs')]})
        samples = [dataset[i] for i in evenly(len(dataset), most)]
    images = torch.stack([sample['inputs'] for sample in samples])
    images = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()        # gray images are trained on with three channels
    labels = np.array([int(sample['data_samples'].gt_label) for sample in samples])
    name = str(cfg.filename)
    return ImageArrays(images[..., ::-1] if reads_bgr(cfg) else images, labels, list(dataset.metainfo['classes']), name)


def evenly(n: int, most: int | None) -> list[int]:
    """Indices of ``most`` of ``n`` items, evenly spaced; of all where there are no more, or ``most`` is None."""
    return list(range(n)) if most is None or n <= most else [i * n // most for i in range(most)]
