"""uint8 batch -> crop, flip, downsample, normalize -> (high, low): one place for both data paths."""
import random
from collections.abc import Sequence

import torch
from mmengine.model import BaseDataPreprocessor
from mmpretrain.models import RandomBatchAugment
from torch import Tensor
from torch.nn import functional as F

from mmcrrcd.datasets.replay import Boxes, Crops, CropTable, boxes_of
from mmcrrcd.datasets.transforms.camera import check_camera
from mmcrrcd.datasets.transforms.resolution_pair import check_resolution, downsample
from mmcrrcd.errors import InputError, is_number
from mmcrrcd.models.classification import soft_labels
from mmcrrcd.models.teachers.cache import TeacherCache
from mmcrrcd.registry import MODELS
from mmcrrcd.structures import Batch, Pair

NO_VIEW = ("the teacher's answers are those of views that repeat, and the batch does not say its view: wrap the training data "
           "in dict(type='mmcrrcd.ReplayedViews', dataset=..., views=..., seed=...), as tools/train.py does")


def crop_and_flip(images: Tensor, crops: Crops, padding: int) -> Tensor:
    """Zero-pad, cut a window of the original size out of each image and mirror some: one gather for the batch.

    Args:
        images: (N, C, H, W).
        crops: first row and column of each window in the padded image, 0 to 2 * padding; where to mirror after cropping.
        padding: pixels on every side.

    Returns:
        (N, C, H, W) in channels-last memory.
    """
    n, _, height, width = images.shape
    padded = F.pad(images, [padding] * 4).permute(0, 2, 3, 1)
    columns = torch.arange(width, device=images.device).expand(n, width)
    columns = torch.where(crops.flip[:, None], columns.flip(1), columns) + crops.left[:, None]
    rows = torch.arange(height, device=images.device) + crops.top[:, None]
    sample = torch.arange(n, device=images.device)[:, None, None]
    return padded[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def crop_and_resize(images: Tensor, boxes: Boxes) -> Tensor:
    """Cut a window out of each image, scale it to the image's size (bilinear), and mirror some: one call for the batch.

    Args:
        images: (N, C, H, W) uint8.

    Returns:
        (N, C, H, W) uint8.
    """
    height, width = images.shape[2:]
    rows, columns = ((torch.arange(side, device=images.device) + 0.5) / side for side in (height, width))
    y = boxes.top[:, None] + boxes.height[:, None] * rows
    x = boxes.left[:, None] + boxes.width[:, None] * torch.where(boxes.flip[:, None], columns.flip(0), columns)
    grid = torch.stack([x[:, None].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)], -1) * 2 - 1
    found = F.grid_sample(images.float(), grid, mode='bilinear', padding_mode='border', align_corners=False)
    return found.round_().to(torch.uint8)


def stacked(images: list[Tensor], samples: list | None) -> Tensor:
    """Images (C, H, W) as one tensor (N, C, H, W). Raises InputError where one has another size; the line names it."""
    odd = next((i for i, image in enumerate(images) if image.shape != images[0].shape), None)
    if odd is not None:
        said = ['{}{} x {} pixels'.format(f'{path} of ' if (path := getattr(sample, 'img_path', '')) else '', *image.shape[-2:])
                for image, sample in ((images[i], samples[i] if samples else None) for i in (0, odd))]
        raise InputError(f'the images of a batch have several sizes, {" and ".join(said)}: let the pipeline bring all to one')
    return torch.stack(images)


@MODELS.register_module()
class PairPreprocessor(BaseDataPreprocessor):
    """Turns a batch of either data path into ``inputs=Pair(high, low)`` and ``data_samples``.

    In-memory pipeline: ``inputs`` (N, 3, H, W) uint8, ``labels``, ``index``. Crop and flip happen here, on the device, and
    ``data_samples`` becomes a :class:`Batch`. In the mmpretrain pipeline: images, in a list or stacked, and a list of
    ``DataSample``, already cropped and flipped. These have ``img_low`` where :class:`ResolutionPair` made it.

    Args:
        mean, std: of the three channels, 0 to 255, in the order of the images (after ``to_rgb``).
        to_rgb: swap the channels, for images that were read as BGR.
        resolution: what the student sees, in training, validation and test alike; None for the teacher's resolution.
        interpolation, antialias, upsample: see :func:`downsample`.
        padding: random crops after zero-padding by so many pixels, in-memory pipeline and training only; None for no crop.
        flip: probability of mirroring, in-memory pipeline and training only.
        crop_scale: in place of ``padding``: random windows of such shares of the area, scaled to the image's size. In-memory
            pipeline and training only.
        blur, noise, jpeg: of the student's images only, see :func:`degrade`. In validation and test the noise is always the
            same.
        train_resolutions: several, of which one is drawn for each batch in training, for a student that works at any of
            them. Validation and test stay at ``resolution``. docs/data.md says what this costs.
        batch_augments: Mixup and CutMix as in mmpretrain's ``ClsDataPreprocessor``: ``dict(augments=..., probs=...)``. The
            images of a batch are mixed before they are downsampled, so teacher and student see the same mixture, and its
            labels are soft ones.
        num_classes: for these labels; None for the student's, which the distiller tells.
    """

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...], to_rgb: bool = False,
                 resolution: int | tuple[int, int] | None = None, interpolation: str = 'bilinear', antialias: bool = True,
                 upsample: bool = False, padding: int | None = None, flip: float = 0.0,
                 train_resolutions: Sequence[int | tuple[int, int]] | None = None,
                 crop_scale: tuple[float, float] | None = None, blur: float = 0.0, noise: float = 0.0,
                 jpeg: int | None = None, batch_augments: dict | None = None, num_classes: int | None = None):
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
        check_camera(blur, noise, jpeg)
        if resolution is None and train_resolutions is None and (blur or noise or jpeg is not None):
            raise InputError('blur, noise and jpeg are those of the small images: say their resolution')
        if crop_scale is not None and (not isinstance(crop_scale, (list, tuple)) or len(crop_scale) != 2
                                       or not all(map(is_number, crop_scale)) or not 0 < crop_scale[0] <= crop_scale[1] <= 1):
            raise InputError(f'crop_scale is the least and the largest share of the area, as (0.25, 1.0), got {crop_scale!r}')
        if crop_scale is not None and padding:
            raise InputError(f'crops are made by padding or by crop_scale, got {padding=} and {crop_scale=}')
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.to_rgb = to_rgb
        self.resolution = resolution
        self.train_resolutions = train_resolutions
        self.downsampling = dict(interpolation=interpolation, antialias=antialias, upsample=upsample, blur=blur, noise=noise,
                                 jpeg=jpeg)
        self.crop_scale = None if crop_scale is None else tuple(crop_scale)
        self.padding = padding
        self.flip = flip
        self.batch_augments, self.num_classes = None, num_classes
        if batch_augments:
            settings = dict(batch_augments)
            if isinstance(probs := settings.get('probs'), (list, tuple)):
                settings['probs'] = list(probs)                          # mmpretrain appends to it
            self.batch_augments = RandomBatchAugment(**settings)
        self.range_is_known = False
        self.crops: CropTable | None = None
        self.cache: TeacherCache | None = None

    def replay(self, views: int | str, num_images: int, seed: int) -> None:
        """From now on crops and flips of the in-memory pipeline are those of the views that the data set says."""
        self.crops = CropTable(views, num_images, self.padding or 0, self.flip, seed, self.crop_scale)

    def use_cache(self, cache: TeacherCache) -> None:
        """From now on training batches carry the teacher's answers, and no images for the teacher are made."""
        self.replay(cache.views, cache.num_images, cache.about['seed'])
        self.cache = cache

    def forward(self, data: dict, training: bool = False) -> dict:
        """A batch of the data loader -> ``inputs``, a normalized :class:`Pair`, and ``data_samples``."""
        given, data = data, self.cast_data(data)
        images, low, view = data['inputs'], None, None
        if isinstance(images, Tensor) and 'data_samples' not in data:
            samples = Batch(data.get('labels'), data.get('index')) if data.keys() & {'labels', 'index'} else None
            if training:
                crops, view = self.draw(data, len(images), images.device)
                images = self.crop(images, crops)
        else:                                            # in a list by pseudo_collate, one tensor by default_collate
            images = images if isinstance(images, Tensor) else stacked(images, data.get('data_samples'))
            images = images.to(memory_format=torch.channels_last)
            self.check_range(images)
            samples = data.get('data_samples')
            if samples and 'img_low' in samples[0]:
                low = torch.stack([sample.img_low for sample in samples])
                self.check_low(low, images)
        if training and self.batch_augments is not None:
            if low is not None:
                raise InputError('batch_augments mix images before they are downsampled, and the samples carry img_low: take '
                                 'ResolutionPair out of the pipeline, and say data_preprocessor.resolution')
            images, samples = self.mix(images, Batch.of(samples))
        several = training and self.train_resolutions
        if low is None:
            # Python's generator: drawn without waiting for the device, seeded by EpochSeedHook, and apart from crops and flips.
            resolution = random.choice(self.train_resolutions) if several else self.resolution
            low = self.downsample(images, resolution, training)
        elif several:
            raise InputError('train_resolutions draws the resolution of the batch, but the samples carry img_low already: take '
                             'ResolutionPair out of the pipeline')
        if training and self.cache is not None:
            samples = self.with_answers(Batch.of(samples), given, view, images.device)
            return dict(inputs=Pair(None, self.normalize(low)), data_samples=samples)
        high = self.normalize(images) if training else None
        same = training and low is images
        return dict(inputs=Pair(high, high if same else self.normalize(low)), data_samples=samples)

    def mix(self, images: Tensor, batch: Batch) -> tuple[Tensor, Batch]:
        """Images (N, 3, H, W) as ``batch_augments`` mix them, rounded to uint8, and their batch with soft labels."""
        if batch.target is None or self.num_classes is None:
            raise InputError('batch_augments mix labels, too, and ' + ('the data have none' if batch.target is None else
                             'their number of classes is not known: say data_preprocessor.num_classes'))
        scores = batch.scores if batch.labels is None else soft_labels(batch.labels, self.num_classes)
        mixed, scores = self.batch_augments(images.float(), scores)
        return mixed.round_().clamp_(0, 255).to(torch.uint8), batch._replace(labels=None, scores=scores)

    def check_range(self, images: Tensor) -> None:
        """Raises InputError where the first images of a pipeline are floats of another range than 0 to 255. ``mean`` and
        ``std`` are of that range, and downsampled images are rounded.
        """
        if self.range_is_known or images.dtype == torch.uint8:
            return
        low, high = (float(each) for each in images.aminmax())
        if low < 0 or high <= 1:
            raise InputError(f'the images are floats from {low:.3g} to {high:.3g}, and a PairPreprocessor takes 0 to 255: '
                             'leave ToTensor and Normalize out of the pipeline; mean and std normalize')
        self.range_is_known = True

    def with_answers(self, batch: Batch, given: dict, view: Tensor | None, device: torch.device) -> Batch:
        """``batch`` with the teacher's answers to its images.

        Args:
            given: the data as the loader gave them; ``view`` (N,): of the in-memory pipeline.
        """
        where, index = self.cache.place(device), batch.index
        if view is None:
            samples = given['data_samples']
            if not all('view' in sample for sample in samples):
                raise InputError(NO_VIEW)
            view, index = (torch.tensor([getattr(sample, key) for sample in samples]) for key in ('view', 'sample_idx'))
        elif where != device and 'view' in given:        # read where the loader left them, for which nothing has to wait
            view, index = given['view'], given['index']
        return batch._replace(teacher=self.cache(view.to(where), index.to(where), device))

    def check_low(self, low: Tensor, images: Tensor) -> None:
        """Raises InputError where the pipeline's low images (N, 3, h, w) are not of the size that ``resolution`` gives."""
        if self.resolution is None:
            return
        wanted = self.downsample(images[:1], self.resolution).shape[2:]
        if low.shape[2:] != wanted:
            raise InputError(f'the samples carry img_low of {low.shape[2]} x {low.shape[3]} pixels, and resolution='
                             f'{self.resolution} of the data_preprocessor makes it {wanted[0]} x {wanted[1]}')

    def downsample(self, images: Tensor, resolution: int | tuple[int, int] | None, training: bool = False) -> Tensor:
        """What the student sees of images (N, 3, H, W) uint8 at ``resolution``; None for the images themselves."""
        if resolution is None:
            return images
        bgr = self.to_rgb and self.downsampling['jpeg'] is not None      # whose luma is that of RGB
        low = downsample(images.flip(1) if bgr else images, resolution, **self.downsampling, seed=None if training else 0)
        return low.flip(1) if bgr else low

    def large(self, data: dict) -> tuple[Tensor, Tensor | None]:
        """The images (N, 3, H, W) uint8 of a batch as a teacher would see them in a test, and their N labels."""
        data = self.cast_data(data)
        images, samples = data['inputs'], data.get('data_samples')
        images = images if isinstance(images, Tensor) else stacked(images, samples)
        return images, Batch.of(samples).labels if samples else data.get('labels')

    def crop(self, images: Tensor, crops: Crops | Boxes | None) -> Tensor:
        """The windows that were drawn."""
        if crops is None:
            return images
        return crop_and_resize(images, crops) if isinstance(crops, Boxes) else crop_and_flip(images, crops, self.padding or 0)

    def draw(self, data: dict, n: int, device: torch.device) -> tuple[Crops | Boxes | None, Tensor | None]:
        """Crops and flips of ``n`` images, None where there are none to make, and their views (N,) where views repeat."""
        if self.crops is not None and not self.crops.every:
            if 'view' not in data:
                raise InputError(NO_VIEW)
            return self.crops.to(device)(data['view'], data['index']), data['view']
        if 'view' in data:
            if self.crops is None:
                raise InputError('the training data repeat their views, and the model has no teacher_cache that knows these')
            return self.crops(data['view'], data['index']), data['view']
        if self.crop_scale:
            return boxes_of(torch.rand(n, 5, device=device), self.crop_scale, self.flip), None
        padding = self.padding or 0
        if not padding and not self.flip:
            return None, torch.zeros(n, dtype=torch.int64, device=device)
        top, left = torch.randint(0, 2 * padding + 1, (2, n), device=device)
        crops = Crops(top, left, torch.rand(n, device=device) < self.flip)
        return crops, self.crops.view_of(crops) if self.crops is not None else None

    def normalize(self, images: Tensor) -> Tensor:
        """Pixels from 0 to 255 (N, C, H, W), float -> normalized, in the order of channels that the networks see."""
        if self.to_rgb:
            images = images.flip(1)
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


def check_reads_cache(preprocessor: BaseDataPreprocessor) -> None:
    """Raises InputError where a preprocessor is none that puts a teacher's stored answers into its batches."""
    if not isinstance(preprocessor, PairPreprocessor):
        raise InputError('teacher_cache needs a data_preprocessor of type PairPreprocessor, got a '
                         f'{type(preprocessor).__name__}')
