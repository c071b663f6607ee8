"""What the network of a checkpoint says of a data set: a teacher, a student, or an exported student, frozen."""
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from mmcrrcd.checkpoint import load_network
from mmcrrcd.config import read_config
from mmcrrcd.datasets import ImageArrays, downsample
from mmcrrcd.datasets.transforms.resolution_pair import check_resolution
from mmcrrcd.errors import InputError
from mmcrrcd.models import PairPreprocessor
from mmcrrcd.models.networks import EmbeddingNetwork, extract
from mmcrrcd.registry import DATASETS, MODELS
from mmcrrcd.structures import NetworkOutput

NAMED = dict(cifar10='CIFAR10Arrays', cifar100='CIFAR100Arrays', stl10='STL10Arrays', svhn='SVHNArrays',
             tinyimagenet='TinyImageNetArrays', uccs='UCCSFaces')
SIDES = dict(STL10Arrays=96, TinyImageNetArrays=64, FaceFolder=112, RecordFaces=112, UCCSFaces=112)      # others: 32
DOWNSAMPLING = ('resolution', 'interpolation', 'antialias', 'upsample')


Size = int | tuple[int, int]


@dataclass(frozen=True)
class Classifier:
    """A network in eval mode, batch norms included, and what its config does to an image before the network sees it.

    Images of another size are first brought to ``side`` x ``side`` pixels, the size of the training's images (bilinear,
    antialiased, rounded to uint8), then downsampled as in training.

    Args:
        network: for :func:`extract`.
        normalization: mean, std and to_rgb of a :class:`PairPreprocessor` for RGB images.
        downsampling: arguments of :func:`downsample`; without a ``resolution`` the network sees the images as they are.
        scale_to: size to which the downsampled images are scaled, by ``scaling``; None for their own.
        scaling: interpolation and antialias of :func:`downsample` for that.
        resolutions: those that it has learned from, where they are several.
    """
    network: nn.Module
    normalization: dict
    side: int
    downsampling: dict
    scale_to: Size | None = None
    scaling: dict = field(default_factory=dict)
    resolutions: tuple[Size, ...] = ()

    @property
    def input_size(self) -> Size:
        """What the network sees."""
        low = None if self.downsampling.get('upsample') else self.downsampling.get('resolution')
        return self.scale_to or low or self.side

    @property
    def any_size(self) -> bool:
        """Has it learned from images of several resolutions, each in its own size?"""
        return bool(self.resolutions) and not self.downsampling.get('upsample')

    def at(self, resolution: Size, scale_to: Size | None = None, **downsampling) -> 'Classifier':
        """The same network on images downsampled to another resolution, or in another way. Raises InputError for one below
        1.
        """
        check_resolution(resolution, downsampling.get('interpolation', 'bilinear'))
        return replace(self, downsampling=self.downsampling | dict(resolution=resolution, **downsampling), scale_to=scale_to)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> NetworkOutput:
        """Of RGB images (N, 3, H, W) uint8."""
        if images.shape[2:] != (self.side, self.side):
            images = downsample(images, self.side)
        if self.downsampling.get('resolution'):
            images = downsample(images, **self.downsampling)
        if self.scale_to:
            images = downsample(images, self.scale_to, **self.scaling)
        seen = PairPreprocessor(**self.normalization).to(images.device)(dict(inputs=images))['inputs'].low
        try:
            return extract(self.network, seen)
        except (RuntimeError, ValueError) as error:
            height, width = seen.shape[2:]
            reason = str(error).splitlines()[0]
            raise InputError(f'the network cannot take images of {height} x {width} pixels: {reason}') from error

    def path_of(self, images: Tensor) -> str:
        """The sizes that images (N, H, W, 3) go through, in words."""
        sizes = [tuple(images.shape[1:3]), self.side, self.downsampling.get('resolution') or self.side, self.input_size]
        texts = [f'{size} x {size}' if isinstance(size, int) else f'{size[0]} x {size[1]}' for size in sizes]
        return ' -> '.join(text for text, before in zip(texts, ['', *texts]) if text != before)


def load_classifier(config: str, checkpoint: str, teacher: bool = False, side: int | None = None) -> Classifier:
    """The student of ``config``, its teacher, or its only network, with the weights of ``checkpoint``.

    Args:
        config: of a training of this package, or of an exported student.
        checkpoint: file or work directory. A training's checkpoint holds its student; the teacher's is a file of its own,
            with an empty ``checkpoint`` the one that ``config`` names.
        teacher: the teacher of ``config``, which sees the images as they are.
        side: see :class:`Classifier`; by default ``input_size`` of the config's model, the size to which its pipeline crops
            or scales, that of its data set where they are arrays, or 32.

    Raises:
        InputError, FileNotFoundError: no such config, checkpoint or teacher, or they do not fit.
    """
    cfg = config_with_model(config)
    name = 'teacher' if teacher else 'student'
    if teacher and cfg.model.get('teacher') is None:
        raise InputError(f'the model of {config} has no teacher')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        network = MODELS.build(cfg.model.teacher if teacher else cfg.model.get('student', cfg.model))
    if checkpoint or next(network.parameters(), None) is not None:
        load_network(getattr(network, 'network', network), checkpoint or cfg.model.teacher_checkpoint, name)
    network.requires_grad_(False).eval().to(get_device(), memory_format=torch.channels_last)

    settings = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    normalization = dict(mean=settings.get('mean') or (0., 0., 0.), std=settings.get('std') or (1., 1., 1.),
                         to_rgb=settings.get('to_rgb', False) != reads_bgr(cfg))
    if isinstance(network, EmbeddingNetwork):
        network.convert_from(PairPreprocessor(**normalization))
    pair = next((step for step in steps_of(cfg) if kind(step) == 'ResolutionPair'), settings)
    downsampling = {} if teacher else {key: pair[key] for key in DOWNSAMPLING if pair.get(key) is not None}
    scaling = {key: downsampling[key] for key in ('interpolation', 'antialias')
               if downsampling.get('upsample') and key in downsampling}
    return Classifier(network, normalization, side or training_side(cfg), downsampling, scaling=scaling,
                      resolutions=() if teacher else tuple(settings.get('train_resolutions') or ()))


def load_runs(runs: list[tuple[str, str, str]], teacher: str | None) -> dict[str, Classifier]:
    """From (config, checkpoint, label) to the networks by label; then 'teacher', that of the first config, unless None."""
    labels = [label for _, _, label in runs] + ['teacher'] * (teacher is not None)
    double = [label for label in labels if labels.count(label) > 1]
    if double:
        raise InputError(f'two networks are called {double[0]!r}')
    networks = {label: load_classifier(config, checkpoint) for config, checkpoint, label in runs}
    return networks if teacher is None else networks | dict(teacher=load_classifier(runs[0][0], teacher, teacher=True))


def config_with_model(path: str) -> Config:
    """The config at ``path``. Raises InputError where it has no model."""
    cfg = read_config(path)
    if 'model' not in cfg:
        raise InputError(f'{path} has no model')
    return cfg


def test_data(cfg: Config) -> dict:
    """The data set of the config's test, of its validation where it has no test, of its training where it has neither."""
    return (cfg.get('test_dataloader') or cfg.get('val_dataloader') or cfg.train_dataloader).dataset


def steps_of(cfg: Config) -> list[dict]:
    """The pipeline of the test data, empty where they are arrays."""
    return test_data(cfg).get('pipeline', [])


def kind(settings: dict) -> str:
    """The bare name of a type, which is a class or a path."""
    found = settings['type']
    return (found if isinstance(found, str) else found.__name__).split('.')[-1]


def reads_bgr(cfg: Config) -> bool:
    """Are the test images BGR, as OpenCV reads files, or RGB, as arrays are?"""
    return any(kind(step) == 'LoadImageFromFile' for step in steps_of(cfg))


def training_side(cfg: Config) -> int:
    """Side in pixels of the images that a config's data give to the teacher."""
    if cfg.model.get('input_size'):
        return cfg.model.input_size
    sizes = [step.get('crop_size') or step.get('scale') for step in steps_of(cfg)]
    sizes = [size if isinstance(size, int) else size[0] for size in sizes if size]
    settings = test_data(cfg)
    arrays = settings.get('arrays', settings)
    return sizes[-1] if sizes else arrays.get('image_size') or SIDES.get(kind(arrays), 32)


def named_images(name: str, split: str, data_root: str | None = None) -> ImageArrays:
    """A public data set, 'train' or 'test', from ``data_root``, by default ``data/<name>``."""
    return DATASETS.build(dict(type=f'mmcrrcd.{NAMED[name]}', data_root=data_root or f'data/{name}', split=split))


def own_images(config: str) -> ImageArrays:
    """The test images of a config at full resolution, as RGB arrays."""
    cfg = config_with_model(config)
    if not cfg.get('test_dataloader') and not cfg.get('val_dataloader'):
        raise InputError(f'{config} has no test images')
    settings = test_data(cfg)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        if 'pipeline' not in settings:
            return DATASETS.build(settings)
        steps = [step for step in steps_of(cfg) if kind(step) not in ('ResolutionPair', 'PackInputs')]
        dataset = DATASETS.build({**settings, 'pipeline': [*steps, dict(type='mmpretrain.PackInputs')]})
        samples = [dataset[i] for i in range(len(dataset))]
    images = torch.stack([sample['inputs'] for sample in samples]).permute(0, 2, 3, 1).numpy()
    labels = np.array([int(sample['data_samples'].gt_label) for sample in samples])
    return ImageArrays(images[..., ::-1] if reads_bgr(cfg) else images, labels, list(dataset.metainfo['classes']), config)


def embed(classifier: Classifier, data: ImageArrays, name: str, batch: int = 500) -> tuple[Tensor, Tensor | None]:
    """Embeddings (N, D) and logits (N, classes) of all images, on the device; shows the progress of ``name`` on stderr.

    The logits are None where the network ends in its embedding.
    """
    device, embeddings, logits = get_device(), [], []
    index = torch.arange(len(data))
    for part in track(index.split(batch), name, console=Console(stderr=True)):
        output = classifier(data.__getitems__(part)['inputs'].to(device))
        embeddings.append(output.embedding)
        logits.append(output.logits)
    return torch.cat(embeddings), None if logits[0] is None else torch.cat(logits)


def embed_blocks(classifier: Classifier, blocks: Iterable[np.ndarray], flip: bool = False) -> Iterator[Tensor]:
    """Embeddings (n, D), on the device, of blocks of RGB images (N_i, H, W, 3) uint8; one block at a time is held.

    No logits are kept, which for face networks are many.

    Args:
        flip: the sum of the embeddings of an image and of its mirror, the flip test of face recognition.
    """
    for block in blocks:
        for part in torch.from_numpy(block).split(128):
            images = part.to(get_device()).permute(0, 3, 1, 2)
            embedding = classifier(images).embedding
            yield embedding + classifier(images.flip(3)).embedding if flip else embedding


def embed_images(classifier: Classifier, images: np.ndarray, name: str, flip: bool = False) -> Tensor:
    """:func:`embed_blocks` of all images (N, H, W, 3), as one tensor (N, D); shows the progress of ``name`` on stderr."""
    starts = track(range(0, len(images), 128), name, console=Console(stderr=True))
    return torch.cat(list(embed_blocks(classifier, (images[start:start + 128] for start in starts), flip)))


def accuracy(classifier: Classifier, data: ImageArrays, name: str) -> float:
    """Percent of the images whose class has the largest logit."""
    _, logits = embed(classifier, data, name)
    if logits is None:
        raise InputError(f'{name} ends in its embedding: it knows no classes')
    classes = len(data.metainfo['classes'])
    if logits.shape[1] != classes:
        raise InputError(f'{name} knows {logits.shape[1]} classes, the data have {classes}')
    return 100 * (logits.argmax(1) == data.labels.to(logits.device)).float().mean().item()
