"""The network of a checkpoint, a teacher's or a student's, frozen, and how it sees images."""
from dataclasses import dataclass, field, replace

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmcrrcd.checkpoint import image_size_in, load_network
from mmcrrcd.config import kind, preprocessor_of
from mmcrrcd.datasets import downsample
from mmcrrcd.datasets.transforms.resolution_pair import SETTINGS, check_resolution
from mmcrrcd.datasets.transforms.student_view import Size, sides
from mmcrrcd.errors import InputError, explained
from mmcrrcd.models import PairPreprocessor
from mmcrrcd.models.networks import extract, use_channels_last
from mmcrrcd.models.teachers.adapters import EmbeddingNetwork
from mmcrrcd.registry import MODELS
from mmcrrcd.structures import NetworkOutput

from .data import config_with_model, reads_bgr, steps_of, training_side


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
        with explained('the network cannot take images of {} x {} pixels'.format(*seen.shape[2:]), (RuntimeError, ValueError)):
            return extract(self.network, seen)

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

    settings = preprocessor_of(cfg)
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
