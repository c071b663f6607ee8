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

from mmcrrcd.checkpoint import image_size_in, load_network
from mmcrrcd.config import kind, read_config
from mmcrrcd.datasets import ImageArrays, downsample
from mmcrrcd.datasets.transforms.resolution_pair import SETTINGS, check_resolution
from mmcrrcd.datasets.transforms.student_view import Size, sides
from mmcrrcd.errors import InputError, first_line
from mmcrrcd.models import PairPreprocessor
from mmcrrcd.models.networks import extract, use_channels_last
from mmcrrcd.models.teachers.adapters import EmbeddingNetwork
from mmcrrcd.registry import DATASETS, MODELS
from mmcrrcd.structures import NetworkOutput

NAMED = dict(cifar10='CIFAR10Arrays', cifar100='CIFAR100Arrays', stl10='STL10Arrays', svhn='SVHNArrays',
             tinyimagenet='TinyImageNetArrays', uccs='UCCSFaces')
SIDES = dict(STL10Arrays=96, TinyImageNetArrays=64, FaceFolder=112, RecordFaces=112, UCCSFaces=112)      # others: 32


@dataclass(frozen=True)
class Classifier:
    """A network in eval mode, batch norms included, and what its config does to an image before the network sees it.

    Images of another size are first brought to ``side``, that of the training's images (bilinear, antialiased, rounded to
    uint8), then downsampled as in training.

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
    side: Size
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

    def straight(self) -> 'Classifier':
        """The same network on images that have the resolution already to which it would downsample larger ones.

        Raises:
            InputError: that is not square.
        """
        size = self.downsampling.get('resolution') or self.side
        if not isinstance(size, int):
            raise InputError(f'faces are square here, the network is shown {size[0]} x {size[1]} pixels: set --resolution')
        return replace(self, side=size, downsampling={}, scale_to=self.input_size)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> NetworkOutput:
        """Of RGB images (N, 3, H, W) uint8."""
        if tuple(images.shape[2:]) != sides(self.side):
            images = downsample(images, self.side)
        if self.downsampling.get('resolution'):
            images = downsample(images, **self.downsampling)
        if self.scale_to:
            images = downsample(images, self.scale_to, **self.scaling)
        return self.ask(images)

    @torch.no_grad()
    def ask(self, images: Tensor) -> NetworkOutput:
        """Of RGB images (N, 3, h, w) uint8 that are already what the network sees."""
        seen = PairPreprocessor(**self.normalization).to(images.device)(dict(inputs=images))['inputs'].low
        try:
            return extract(self.network, seen)
        except InputError:
            raise
        except (RuntimeError, ValueError) as error:
            height, width = seen.shape[2:]
            raise InputError(f'the network cannot take images of {height} x {width} pixels: {first_line(error)}') from error

    def path_of(self, images: Tensor) -> str:
        """The sizes that images (N, H, W, 3) go through, in words."""
        sizes = [tuple(images.shape[1:3]), self.side, self.downsampling.get('resolution') or self.side, self.input_size]
        texts = [f'{size} x {size}' if isinstance(size, int) else f'{size[0]} x {size[1]}' for size in sizes]
        return ' -> '.join(text for text, before in zip(texts, ['', *texts]) if text != before)


def load_classifier(config: str | Config, checkpoint: str, teacher: bool = False, side: Size | None = None) -> Classifier:
    """The student of ``config``, its teacher, or its only network, with the weights of ``checkpoint``.

    Args:
        config: of a training of this package, or of an exported student; a file, which is run as a program, or the settings.
        checkpoint: file or work directory. A training's checkpoint holds its student; the teacher's is a file of its own,
            with an empty ``checkpoint`` the one that ``config`` names.
        teacher: the teacher of ``config``, which sees the images as they are.
        side: see :class:`Classifier`; by default see :func:`training_side`.

    Raises:
        InputError, FileNotFoundError: no such config, checkpoint or teacher, or they do not fit.
    """
    cfg = config_with_model(config)
    name = 'teacher' if teacher else 'student'
    if teacher and cfg.model.get('teacher') is None:
        raise InputError(f'the model of {cfg.filename} has no teacher')
    recorded = None
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        network = MODELS.build(cfg.model.teacher if teacher else cfg.model.get('student', cfg.model))
    if checkpoint or next(network.parameters(), None) is not None:
        load_network(getattr(network, 'network', network), checkpoint or cfg.model.teacher_checkpoint, name)
        recorded = None if teacher else image_size_in(checkpoint)
    use_channels_last(network.requires_grad_(False).eval().to(get_device()))

    settings = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    normalization = dict(mean=settings.get('mean') or (0., 0., 0.), std=settings.get('std') or (1., 1., 1.),
                         to_rgb=settings.get('to_rgb', False) != reads_bgr(cfg))
    preprocessor = PairPreprocessor(**normalization)     # it says what is wrong with these numbers
    if isinstance(network, EmbeddingNetwork):
        network.convert_from(preprocessor)
    pair = next((step for step in steps_of(cfg) if kind(step) in ('ResolutionPair', 'StudentView')), settings)
    downsampling = {} if teacher else {key: pair[key] for key in SETTINGS if pair.get(key) is not None}
    scaling = {key: downsampling[key] for key in ('interpolation', 'antialias')
               if downsampling.get('upsample') and key in downsampling}
    return Classifier(network, normalization, side or training_side(cfg, recorded), downsampling, scaling=scaling,
                      resolutions=() if teacher else tuple(settings.get('train_resolutions') or ()))


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
