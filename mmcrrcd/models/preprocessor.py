"""uint8 batch -> crop, flip, downsample, normalize -> (high, low): one place for both data paths."""
import random
from collections.abc import Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor
from torch.nn import functional as F

from mmcrrcd.datasets.transforms.resolution_pair import check_resolution, downsample
from mmcrrcd.errors import InputError, is_number
from mmcrrcd.registry import MODELS
from mmcrrcd.structures import Batch, Pair


def crop_and_flip(images: Tensor, top: Tensor, left: Tensor, flip: Tensor, padding: int) -> Tensor:
    """Zero-pad, cut a window of the original size out of each image and mirror some: one gather for the batch.

    Args:
        images: (N, C, H, W).
        top, left: (N,) int64, first row and column of the window in the padded image, 0 to 2 * padding.
        flip: (N,) bool, mirror left and right after cropping.
        padding: pixels on every side.

    Returns:
        (N, C, H, W) in channels-last memory.
    """
    n, _, height, width = images.shape
    padded = F.pad(images, [padding] * 4).permute(0, 2, 3, 1)
    columns = torch.arange(width, device=images.device).expand(n, width)
    columns = torch.where(flip[:, None], columns.flip(1), columns) + left[:, None]
    rows = torch.arange(height, device=images.device) + top[:, None]
    sample = torch.arange(n, device=images.device)[:, None, None]
    return padded[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@MODELS.register_module()
class PairPreprocessor(BaseDataPreprocessor):
    """Turns a batch of either data path into ``inputs=Pair(high, low)`` and ``data_samples``.

    In-memory pipeline: ``inputs`` (N, 3, H, W) uint8, ``labels``, ``index``; crop and flip happen here, on the device, and
    ``data_samples`` becomes a :class:`Batch`. mmpretrain pipeline: lists of images and of ``DataSample`` from mmpretrain's
    pipelines, already cropped and flipped, with ``img_low`` where :class:`ResolutionPair` made it.

    Args:
        mean, std: of the three channels, 0 to 255, in the order of the images (after ``to_rgb``).
        to_rgb: swap the channels, for images that were read as BGR.
        resolution: what the student sees, in training, validation and test alike; None for the teacher's resolution.
        interpolation, antialias, upsample: see :func:`downsample`.
        padding: random crops after zero-padding by so many pixels, in-memory pipeline and training only; None for no crop.
        flip: probability of mirroring, in-memory pipeline and training only.
        train_resolutions: several, of which one is drawn for each batch in training, for a student that works at any of
            them; validation and test stay at ``resolution``. docs/data.md says what this costs.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], to_rgb: bool = False,
                 resolution: int | tuple[int, int] | None = None, interpolation: str = 'bilinear', antialias: bool = True,
                 upsample: bool = False, padding: int | None = None, flip: float = 0.0,
                 train_resolutions: Sequence[int | tuple[int, int]] | None = None):
        super().__init__(non_blocking=True)
        if train_resolutions is not None and (not isinstance(train_resolutions, (list, tuple)) or not train_resolutions):
            raise InputError(f'train_resolutions is a list of resolutions, got {train_resolutions!r}')
        for each in (resolution, *(train_resolutions or ())):
            check_resolution(each, interpolation)
        for name, values in (('mean', mean), ('std', std)):
            if not isinstance(values, (list, tuple)) or len(values) != 3 or not all(map(is_number, values)):
                raise InputError(f'{name} of a PairPreprocessor is three numbers, one for each channel, got {values!r}')
        if min(std) <= 0:
            raise InputError(f'std of a PairPreprocessor is positive, got {std!r}')
        if padding is not None and (not is_number(padding, whole=True) or padding < 0):
            raise InputError(f'padding is a number of pixels, got {padding!r}')
        if not is_number(flip) or not 0 <= flip <= 1:
            raise InputError(f'flip is a probability, from 0 to 1, got {flip!r}')
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.to_rgb = to_rgb
        self.resolution = resolution
        self.train_resolutions = train_resolutions
        self.downsampling = dict(interpolation=interpolation, antialias=antialias, upsample=upsample)
        self.padding = padding
        self.flip = flip

    def forward(self, data: dict, training: bool = False) -> dict:
        data = self.cast_data(data)
        images, low = data['inputs'], None
        if isinstance(images, Tensor):
            samples = Batch(data['labels'], data['index']) if 'labels' in data else None
            if training:
                images = self.augment(images)
        else:
            images = torch.stack(images).to(memory_format=torch.channels_last)
            samples = data.get('data_samples')
            if samples and 'img_low' in samples[0]:
                low = torch.stack([sample.img_low for sample in samples])
                self.check_low(low, images)
        several = training and self.train_resolutions
        if low is None:
            # Python's generator: drawn without waiting for the device, seeded by EpochSeedHook, and apart from crops and flips.
            resolution = random.choice(self.train_resolutions) if several else self.resolution
            low = self.downsample(images, resolution)
        elif several:
            raise InputError('train_resolutions draws the resolution of the batch, but the samples carry img_low already: take '
                             'ResolutionPair out of the pipeline')
        high = None
        if training:
            high = self.normalize(images)
        same = training and low is images
        return dict(inputs=Pair(high, high if same else self.normalize(low)), data_samples=samples)

    def check_low(self, low: Tensor, images: Tensor) -> None:
        """Raises InputError where the pipeline's low images (N, 3, h, w) are not of the size that ``resolution`` gives."""
        if self.resolution is None:
            return
        wanted = self.downsample(images[:1], self.resolution).shape[2:]
        if low.shape[2:] != wanted:
            raise InputError(f'the samples carry img_low of {low.shape[2]} x {low.shape[3]} pixels, and resolution='
                             f'{self.resolution} of the data_preprocessor makes it {wanted[0]} x {wanted[1]}')

    def downsample(self, images: Tensor, resolution: int | tuple[int, int] | None) -> Tensor:
        """What the student sees of images (N, 3, H, W) uint8 at ``resolution``; None for the images themselves."""
        return images if resolution is None else downsample(images, resolution, **self.downsampling)

    def augment(self, images: Tensor) -> Tensor:
        """Random crops and flips of a batch, (N, C, H, W)."""
        n, padding = len(images), self.padding or 0
        if not padding and not self.flip:
            return images
        top, left = torch.randint(0, 2 * padding + 1, (2, n), device=images.device)
        flip = torch.rand(n, device=images.device) < self.flip
        return crop_and_flip(images, top, left, flip, padding)

    def normalize(self, images: Tensor) -> Tensor:
        if self.to_rgb:
            images = images.flip(1)
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
