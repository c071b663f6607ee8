"""A part of an in-memory data set: a few images of each class, or without some that are held out."""
import torch
from torch import Tensor

from mmcrrcd.errors import InputError, check_positive
from mmcrrcd.registry import DATASETS

from .images import ImageArrays


def held_out(labels: Tensor, number: int, seed: int = 0) -> Tensor:
    """Which of the images with these ``labels`` are held out, (N,) bool: ``number`` in all, the same of each class.

    Raises:
        InputError: ``number`` is no multiple of the classes, or leaves no image of a class.
    """
    classes, counts = labels.unique(return_counts=True)
    each, rest = divmod(number, len(classes))
    if rest or each >= counts.min():
        raise InputError(f'holdout={number} of {len(labels)} images in {len(classes)} classes: it is a multiple of the classes '
                         'that leaves images of each')
    chosen, generator = torch.zeros(len(labels), dtype=torch.bool), torch.Generator().manual_seed(seed)
    for label in classes:
        own = (labels == label).nonzero()[:, 0]
        chosen[own[torch.randperm(len(own), generator=generator)[:each]]] = True
    return chosen


@DATASETS.register_module()
class SubsetArrays(ImageArrays):
    """Some images of an :class:`ImageArrays`, a data set of its own: ``index`` counts these images.

    Args:
        dataset: config of the whole data set.
        images_per_class: the first so many of each class that are not held out; None for all.
        holdout: so many images are held out, evenly over the classes, drawn by ``seed``.
        part: 'train', the rest; or 'holdout', those held out, whatever ``images_per_class`` is.
        device: see :class:`ImageArrays`.

    Raises:
        InputError: a class has fewer images; see also :func:`held_out`.

    Example:
        >>> dict(type='mmcrrcd.SubsetArrays', dataset=dict(type='mmcrrcd.CIFAR100Arrays', data_root='data/cifar100'),
        ...      images_per_class=100, holdout=5000)
    """

    def __init__(self, dataset: dict, images_per_class: int | None = None, holdout: int = 0, part: str = 'train',
                 seed: int = 0, device: str = 'cpu'):
        whole = DATASETS.build(dataset)
        labels = whole.labels.cpu()
        if part not in ('train', 'holdout') or part == 'holdout' and not holdout:
            raise InputError(f"part is 'train', or 'holdout' where holdout says how many, got {part!r} with {holdout=}")
        out = held_out(labels, holdout, seed) if holdout else torch.zeros(len(labels), dtype=torch.bool)
        used = out if part == 'holdout' else ~out
        if images_per_class is not None and part == 'train':
            check_positive(whole=True, images_per_class=images_per_class)
            for label in labels.unique():
                own = (used & (labels == label)).nonzero()[:, 0]
                if len(own) < images_per_class:
                    raise InputError(f'images_per_class={images_per_class}: class {int(label)} has {len(own)} images')
                used[own[images_per_class:]] = False
        super().__init__(whole.images.cpu()[used].numpy(), labels[used].numpy(), list(whole.metainfo['classes']),
                         f'{type(whole).__name__} ({part})', device)
