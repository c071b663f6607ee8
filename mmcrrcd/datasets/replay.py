"""Augmentation that repeats: view v of image i is the same in every epoch, process and training."""
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mmcrrcd.errors import InputError, check_positive, is_number
from mmcrrcd.generators import generators_seeded
from mmcrrcd.registry import DATASETS

from .mended import parts_of


class Crops(NamedTuple):
    """First row and column of each window in the padded image, and whether it is mirrored: (N,) int64, int64, bool."""
    top: Tensor
    left: Tensor
    flip: Tensor


class Boxes(NamedTuple):
    """Windows of any size, in shares of the image's height and width, and whether they are mirrored: (N,) each."""
    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor


RATIO = 4 / 3                                            # a window is at most so much longer than wide, or wider than long


def boxes_of(drawn: Tensor, scale: tuple[float, float], flip: float) -> Boxes:
    """Windows of RandomResizedCrop from uniform numbers (N, 5). Their shares of the area are in ``scale``, their ratios of
    sides in [3/4, 4/3], as far as that leaves them within the image.
    """
    area = scale[0] + (scale[1] - scale[0]) * drawn[:, 0]
    most = (-area.log()).clamp(max=math.log(RATIO))
    ratio = torch.exp(most * (2 * drawn[:, 1] - 1))
    height, width = ((area * each).sqrt().clamp(max=1) for each in (ratio, 1 / ratio))
    return Boxes((1 - height) * drawn[:, 2], (1 - width) * drawn[:, 3], height, width, drawn[:, 4] < flip)


def number_of_views(views: int | str, padding: int, flip: float) -> int:
    """How many views ``views`` stands for: 'all' are those that crops of ``padding`` and flips can make, 162 for 4 and both."""
    return (2 * padding + 1) ** 2 * (2 if flip else 1) if views == 'all' else views


def check_views(views: int | str, seed: int) -> None:
    """Raises InputError where ``views`` is neither a positive whole number nor 'all', or the seed no whole number."""
    if views != 'all':
        check_positive(whole=True, views=views)
    if not is_number(seed, whole=True) or seed < 0:
        raise InputError(f'seed of the views is a whole number from 0 on, got {seed!r}')


class CropTable:
    """Crops and flips of the in-memory pipeline as a function of view and image.

    Args:
        views: how many views an image has; 'all' for each possible one.
        num_images, padding, flip: of the data and the preprocessor; ``flip`` is a probability.
        seed: view v is drawn by a generator seeded by (seed, v).
        scale: windows of such shares of the area instead, see :func:`boxes_of`.

    Raises:
        InputError: all possible views are wanted, and there is no end of them.
    """

    def __init__(self, views: int | str, num_images: int, padding: int, flip: float, seed: int,
                 scale: tuple[float, float] | None = None):
        self.padding, self.flip, self.flips, self.every, self.scale = padding, flip, bool(flip), views == 'all', scale
        if self.every and scale:
            raise InputError("views='all' is for crops of a fixed size; with crop_scale say how many views")
        if self.every:
            return
        if scale:
            generators = (np.random.default_rng([seed, view]) for view in range(views))
            self.table = torch.from_numpy(np.stack([each.random((num_images, 5), np.float32) for each in generators]))
            return
        table = np.empty((views, num_images, 3), np.uint8)
        for view, drawn in enumerate(table):
            rng = np.random.default_rng([seed, view])
            drawn[:, :2] = rng.integers(0, 2 * padding + 1, (num_images, 2))
            drawn[:, 2] = rng.random(num_images) < flip
        self.table = torch.from_numpy(table)

    def to(self, device) -> 'CropTable':
        """Moves the table, where there is one, to a device."""
        if not self.every:
            self.table = self.table.to(device)
        return self

    def __call__(self, view: Tensor, index: Tensor) -> Crops | Boxes:
        """Of the images ``index`` in their ``view``, (N,) both."""
        if self.scale:
            return boxes_of(self.table[view, index], self.scale, self.flip)
        if self.every:
            place, flip = (view // 2, view % 2) if self.flips else (view, torch.zeros_like(view))
            top, left = place // (2 * self.padding + 1), place % (2 * self.padding + 1)
        else:
            top, left, flip = self.table[view, index].long().unbind(1)
        return Crops(top, left, flip.bool())

    def view_of(self, crops: Crops) -> Tensor:
        """The view (N,) that shows these crops, where there are all of them: the inverse of calling the table."""
        place = crops.top * (2 * self.padding + 1) + crops.left
        return place * 2 + crops.flip if self.flips else place


@DATASETS.register_module()
class ReplayedViews(Dataset):
    """Another data set, of which each image is seen in ``views`` augmentations that repeat.

    Image i shows view (epoch + offset_i) mod ``views``; the offsets are drawn once, by the seed. A pipeline of mmpretrain runs
    with Python's, NumPy's and torch's generators seeded by (seed, image, view), and the sample says ``view`` and
    ``sample_idx``. Batches of the in-memory pipeline get ``view`` (N,) int64, after which the preprocessor crops and flips.

    :class:`ReplayHook` tells the epoch, also to workers that outlive it.

    Args:
        dataset: a data set or its config.
        views: how many.
        seed: of views and offsets.

    Raises:
        InputError: there are no images, or they are in memory with a wrapper around them.
    """

    def __init__(self, dataset: dict | Dataset, views: int, seed: int = 0):
        check_views(views, seed)
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset
        if hasattr(self.dataset, 'full_init'):
            self.dataset.full_init()
        if not len(self.dataset):
            raise InputError(f'there is no image to replay: the {type(self.dataset).__name__} is empty')
        arrays = next((part for part in parts_of(self.dataset) if hasattr(part, 'images')), None)
        if arrays is not None and self.images is None:
            raise InputError(f'a {type(self.dataset).__name__} around data in memory, {type(arrays).__name__}, cannot be '
                             'replayed: name the data alone, or put mmcrrcd.PipelineArrays between the two')
        self.views, self.seed = views, seed
        offset = torch.from_numpy(np.random.default_rng([seed, 2**31]).integers(0, views, len(self.dataset)))
        self.offset = offset.to(self.images.device) if self.images is not None else offset
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def metainfo(self) -> dict:
        """That of the wrapped data set."""
        return self.dataset.metainfo

    @property
    def CLASSES(self) -> tuple[str, ...] | None:         # noqa: N802
        """The classes' names, where mmpretrain's hooks look for them."""
        return self.metainfo.get('classes')

    @property
    def images(self) -> Tensor | None:
        """Of the in-memory pipeline, (N, H, W, 3) uint8."""
        return getattr(self.dataset, 'images', None)

    def set_epoch(self, epoch: int) -> None:
        """From now on images show the views of this epoch."""
        self.epoch.fill_(epoch)

    def view_of(self, index: Tensor) -> Tensor:
        """The views of the images ``index`` in this epoch, (N,) int64 both."""
        return (int(self.epoch) + self.offset[index]) % self.views

    def in_view(self, i: int, view: int):
        """Sample ``i`` of the pipeline in a view of its own."""
        with generators_seeded(self.seed, i, view):
            sample = self.dataset[i]
        for key, value in (('sample_idx', i), ('view', view)):          # its place here, not that in a part of a ConcatDataset
            sample['data_samples'].set_field(value, key, field_type='metainfo')
        return sample

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int):
        if self.images is not None:
            return self.__getitems__([i])
        return self.in_view(i, int(self.view_of(torch.tensor(i))))

    def __getitems__(self, indices: list[int]):
        if self.images is None:
            return [self[i] for i in indices]
        batch = self.dataset.__getitems__(indices)
        return batch | dict(view=self.view_of(batch['index']))


class EveryView(Dataset):
    """All views of a replayed data set, one after the other: what the cache is built from.

    Number v x N + i is image i of N in view v.

    Args:
        replayed: the data set, of any number of views.
        views: how many of them.
    """

    def __init__(self, replayed: ReplayedViews, views: int):
        self.replayed, self.views = replayed, views

    def __len__(self) -> int:
        return self.views * len(self.replayed)

    def __getitems__(self, numbers: list[int]):
        view, index = np.divmod(numbers, len(self.replayed))
        if self.replayed.images is None:
            return [self.replayed.in_view(i, v) for i, v in zip(index.tolist(), view.tolist())]
        batch = self.replayed.dataset.__getitems__(index.tolist())
        return batch | dict(view=torch.from_numpy(view).to(batch['index'].device))
