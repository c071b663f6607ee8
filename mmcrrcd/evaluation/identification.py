"""Who is this? Ranks of the right faces of a gallery among all others, with any number of distractors: Table VII of the paper.

The protocol is that of TinyFace (Cheng et al. 2018), whose average precision is the area under the curve of precision over
recall by trapezoids. All is counted exactly in float64, without a matrix of all similarities.
Of a distractor only this matters, above how many of a probe's right faces it lies.
"""
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mmcrrcd.errors import InputError

ROWS, COLUMNS = 512, 4096                                # of the largest matrix: 16 MB of similarities


@dataclass(frozen=True)
class Identification:
    """What :func:`identify` finds.

    Attributes:
        ranks: (P,) int64, of each probe's first right face, from 1.
        average_precisions: (P,) float64, 0 to 1, of each probe.
        searched: faces among which each probe was looked for.
    """
    ranks: Tensor
    average_precisions: Tensor
    searched: int

    def rank(self, k: int) -> float:
        """Percent of the probes with a right face among the first ``k``."""
        return 100 * (self.ranks <= k).double().mean().item()

    @property
    def mean_average_precision(self) -> float:
        """In percent."""
        return 100 * self.average_precisions.mean().item()


def unit(embeddings: Tensor, name: str) -> Tensor:
    """(N, D) float64 of length 1."""
    if embeddings.ndim != 2 or not embeddings.isfinite().all():
        raise InputError(f'{name}: expected finite embeddings (N, D), got {tuple(embeddings.shape)}')
    return F.normalize(embeddings.double())


def at_or_above(thresholds: Tensor, scores: Tensor) -> Tensor:
    """How many of a row's scores, C of them, reach each of its thresholds, which ascend. Gives (R, K) int64."""
    reached = torch.searchsorted(thresholds, scores.contiguous(), right=True)
    counts = torch.zeros(len(scores), thresholds.shape[1] + 1, dtype=torch.int64, device=scores.device)
    counts.scatter_add_(1, reached, torch.ones_like(reached))
    return counts.flip(1).cumsum(1).flip(1)[:, 1:]


def identify(gallery: Tensor, gallery_ids: Tensor, probe: Tensor, probe_ids: Tensor,
             distractors: Iterable[Tensor] = ()) -> Identification:
    """Rank all faces of the gallery and all distractors by their cosine with each probe.

    Ties count against the network: a wrong face with the similarity of a right one is before it. Precision at a place is the
    share of right faces among the faces up to it, and 1 before the first. A probe's average precision is the mean over its
    right faces of the mean of the precisions at its place and at the one before. So one right face at rank 2 gives 0.25; means
    of the precisions at the right faces only, as scikit-learn's, are larger.

    Args:
        gallery, probe: embeddings of D numbers, of any length, G and P rows, on one device. No probe is itself in the gallery.
        gallery_ids, probe_ids: the persons, G and P numbers, int64.
        distractors: blocks (N_i, D) of persons who are nobody's right face; one block at a time is held.

    Raises:
        InputError: a probe without a right face in the gallery, widths that differ, embeddings that are not finite.

    Example:
        >>> gallery = torch.eye(3)
        >>> identify(gallery, torch.arange(3), gallery[:2] + 0.1, torch.tensor([0, 2])).rank(1)
        50.0
    """
    gallery, probe = unit(gallery, 'gallery'), unit(probe, 'probes')
    gallery_ids, probe_ids = gallery_ids.to(gallery.device), probe_ids.to(gallery.device)
    if gallery.shape[1] != probe.shape[1]:
        raise InputError(f'the probes have {probe.shape[1]} numbers each, the gallery {gallery.shape[1]}')
    missing = ~torch.isin(probe_ids, gallery_ids)
    if missing.any():
        raise InputError(f'{int(missing.sum())} of {len(probe)} probes show persons who are not in the gallery')
    most = int(gallery_ids.unique(return_counts=True)[1].max())
    thresholds, wrong = [], []                           # of the right faces, ascending, then inf; wrong ones at or above each
    for rows, ids in zip(probe.split(ROWS), probe_ids.split(ROWS)):
        scores, own = rows @ gallery.T, ids[:, None] == gallery_ids
        of_right, of_wrong = scores.where(own, -torch.inf), scores.where(~own, -torch.inf)
        found = of_right.topk(most).values
        found = found.where(found.isfinite(), torch.inf).sort().values
        thresholds.append(found)
        wrong.append(at_or_above(found, of_wrong))
    searched = len(gallery)
    for block in distractors:
        searched += len(block)
        block = unit(block.to(probe.device), 'distractors')
        if block.shape[1] != probe.shape[1]:
            raise InputError(f'the distractors have {block.shape[1]} numbers each, the probes {probe.shape[1]}')
        for columns in block.split(COLUMNS):
            for rows, found, count in zip(probe.split(ROWS), thresholds, wrong):
                count += at_or_above(found, rows @ columns.T)
    wrong, real = torch.cat(wrong), torch.cat(thresholds).isfinite()
    right = (real.sum(1, keepdim=True) - torch.arange(most, device=real.device)).clamp(min=1)       # this one and those above
    ranks = wrong.where(real, torch.iinfo(torch.int64).max - 1).amin(1) + 1
    place = right + wrong
    before = ((right - 1) / (place - 1).clamp(min=1).double()).where(place > 1, 1)
    precisions = ((before + right / place.double()) / 2).where(real, 0)
    return Identification(ranks.cpu(), (precisions.sum(1) / real.sum(1)).cpu(), searched)
