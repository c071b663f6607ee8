"""The three things that are passed around: a pair of images, the batch's labels, and what a network says of a batch."""
from typing import NamedTuple

import torch
from torch import Tensor

from mmcrrcd.errors import InputError


class Pair(NamedTuple):
    """The same content at two resolutions: ``high`` (N, 3, H, W) for the teacher. ``low`` (N, 3, h, w) is for the student.

    ``high`` is None where only the student looks (validation, test).
    """
    high: Tensor | None
    low: Tensor


class NetworkOutput(NamedTuple):
    """What one network says of one batch.

    ``feature_maps``: outputs of the stages, (N, C, H, W) each, before them the stem's where ``has_stem``. ``embedding``: the
    paper's e, the pooled feature before the classifier, (N, D). ``logits``: the paper's z, (N, classes), None from a teacher
    that ends in its embedding. ``image_size``: height and width of the images it saw, by which stages of two networks are
    paired. None where a network of your own does not tell.
    ``pre_activations``: outputs of the stages before their last activation, stem left out; only where asked for
    (:func:`ask_for_pre_activations`). ``has_stem``: is ``feature_maps[0]`` the stem's? So in the backbones of this package, not
    in mmpretrain's.
    """
    feature_maps: tuple[Tensor, ...]
    embedding: Tensor
    logits: Tensor | None
    image_size: tuple[int, int] | None = None
    pre_activations: tuple[Tensor, ...] = ()
    has_stem: bool = True


class Batch(NamedTuple):
    """What is known of a batch beside its images.

    ``labels``, classes, and ``index``, positions in the data set, (N,) int64 both; None where the data do not tell.
    ``teacher``: its answers to the images where they were computed before (:class:`TeacherCache`), else None.
    ``scores`` (N, classes): soft labels, of images that were mixed, say; no image has one class then, so ``labels`` is None.
    """
    labels: Tensor | None
    index: Tensor | None
    teacher: NetworkOutput | None = None
    scores: Tensor | None = None

    @property
    def target(self) -> Tensor | None:
        """What the classification loss compares with: N classes, soft labels (N, classes), or None."""
        return self.labels if self.scores is None else self.scores

    @classmethod
    def of(cls, data_samples) -> 'Batch':
        """The batch itself, or the batch that a list of mmpretrain's ``DataSample`` describes.

        Raises:
            InputError: an image has several labels.
        """
        if isinstance(data_samples, cls):
            return data_samples
        if data_samples is None:
            return cls(None, None)
        labeled = all('gt_label' in sample for sample in data_samples)
        labels = torch.cat([sample.gt_label for sample in data_samples]) if labeled else None
        if labeled and (labels.shape != (len(data_samples),) or labels.is_floating_point()):
            raise InputError(f'{len(data_samples)} images have labels {tuple(labels.shape)} {labels.dtype}: expected one class '
                             'for each image; several labels for an image are not supported')
        device = None if labels is None else labels.device
        scores = index = None
        if all('gt_score' in sample for sample in data_samples):         # of mmpretrain's batch augmentations, or of the data
            scores, labels = torch.stack([sample.gt_score for sample in data_samples]), None
        if all('sample_idx' in sample for sample in data_samples):
            index = torch.tensor([sample.sample_idx for sample in data_samples], device=device)
        return cls(labels, index, scores=scores)
