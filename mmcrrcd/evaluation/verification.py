"""Are two faces of one person? The protocol of LFW (Huang et al. 2007), Table V of the paper.

Everywhere a pair is said to be of one person where its similarity is at least the threshold.
"""
from dataclasses import dataclass

import numpy as np
from sklearn import metrics
from torch import Tensor
from torch.nn import functional as F

from mmcrrcd.errors import InputError


@dataclass(frozen=True)
class Roc:
    """Every operating point there is, from 'nobody is the same' on: one for each distinct similarity, largest first.

    Attributes:
        thresholds: (K + 1,) float64, the first one inf.
        false_accepts, true_accepts: (K + 1,) int64, pairs of two persons, of one person, at or above the threshold.
    """
    thresholds: np.ndarray
    false_accepts: np.ndarray
    true_accepts: np.ndarray

    @property
    def far(self) -> np.ndarray:
        """False accept rate, 0 to 1."""
        return self.false_accepts / self.false_accepts[-1]

    @property
    def tar(self) -> np.ndarray:
        """True accept rate, 0 to 1."""
        return self.true_accepts / self.true_accepts[-1]

    def auc(self) -> float:
        """Area under the points joined by lines: how often a pair of one person is above one of two, ties by half."""
        return float(metrics.auc(self.far, self.tar))

    def eer(self) -> float:
        """Where false accepts and false rejects are equally frequent, 0 to 1, on the line between the two nearest points."""
        gap = self.far - (1 - self.tar)                  # rises from -1 to 1
        after = int(np.argmax(gap >= 0))
        before = after - 1
        part = gap[before] / (gap[before] - gap[after])
        return float(self.far[before] + part * (self.far[after] - self.far[before]))

    def tar_at(self, far: float) -> float | None:
        """True accept rate, 0 to 1, at the lowest threshold whose false accept rate is at most ``far``: a point that exists,
        without interpolation. None where ``far`` is less than one false accept, which these pairs cannot measure.
        """
        allowed = far * self.false_accepts[-1] + 1e-9    # 0.001 x 3000 is 3
        if allowed < 1:
            return None
        return float(self.tar[np.flatnonzero(self.false_accepts <= allowed)[-1]])


@dataclass(frozen=True)
class Verification:
    """What :func:`verify` finds.

    Attributes:
        accuracies: in percent, of each fold in the order of their numbers, at its own of the ``thresholds``.
        roc: of all pairs, whatever their fold.
    """
    accuracies: list[float]
    thresholds: list[float]
    roc: Roc

    @property
    def accuracy(self) -> float:
        """Mean over the folds, in percent."""
        return float(np.mean(self.accuracies))

    @property
    def standard_error(self) -> float:
        """Of the mean, in percent: the folds' standard deviation (n - 1) over the root of their number, as LFW has it."""
        return float(np.std(self.accuracies, ddof=1) / len(self.accuracies)**0.5)


def cosines(embeddings: Tensor, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Of P pairs of embeddings (M, D), whose rows are ``left`` and ``right``: P numbers, float64, from -1 to 1."""
    unit = F.normalize(embeddings.cpu().double()).numpy()
    return np.einsum('pd,pd->p', unit[left], unit[right])


def check_pairs(scores: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 and bool.

    Raises:
        InputError: lengths that differ, a similarity that is not a number, no pair of one person or none of two.
    """
    scores, same = np.asarray(scores, np.float64), np.asarray(same, bool)
    if scores.ndim != 1 or scores.shape != same.shape:
        raise InputError(f'expected a similarity and an answer for each pair, got {scores.shape} and {same.shape}')
    if not np.isfinite(scores).all():
        raise InputError(f'{int((~np.isfinite(scores)).sum())} of {len(scores)} similarities are not finite')
    if not 0 < same.sum() < len(same):
        raise InputError(f'pairs of one person and of two are needed, got {int(same.sum())} and {int((~same).sum())}')
    return scores, same


def roc_curve(scores: np.ndarray, same: np.ndarray) -> Roc:
    """Of the similarities of P pairs, and whether each is of one person, (P,) bool; for its errors see :func:`check_pairs`."""
    scores, same = check_pairs(scores, same)
    far, tar, thresholds = metrics.roc_curve(same, scores, drop_intermediate=False)
    accepts = (np.rint(rate * number).astype(np.int64) for rate, number in ((far, (~same).sum()), (tar, same.sum())))
    return Roc(thresholds, *accepts)


def best_threshold(roc: Roc) -> float:
    """The similarity at which most pairs are told right; of equally good ones the largest."""
    return float(roc.thresholds[np.argmax(roc.true_accepts - roc.false_accepts)])


def verify(scores: np.ndarray, same: np.ndarray, fold: np.ndarray) -> Verification:
    """For each fold the threshold that is best on all the others, out of their similarities (and inf), and its accuracy there.

    Args:
        scores: (P,) similarities.
        same: (P,) bool.
        fold: (P,) int; LFW has 10 folds of 600 pairs.

    Raises:
        InputError: fewer than two folds; the others of a fold lack pairs of one person or of two; see :func:`check_pairs`.

    Example:
        >>> verify(np.array([.9, .1, .8, .3]), np.array([True, False, True, False]), np.array([0, 0, 1, 1])).accuracies
        [100.0, 50.0]
    """
    scores, same = check_pairs(scores, same)
    fold = np.asarray(fold)
    numbers = np.unique(fold)
    if fold.shape != scores.shape or len(numbers) < 2:
        raise InputError(f'expected two or more folds, one number for each of the {len(scores)} pairs, '
                         f'got {len(numbers)} in {fold.shape}')
    thresholds, accuracies = [], []
    for number in numbers:
        held_out = fold == number
        threshold = best_threshold(roc_curve(scores[~held_out], same[~held_out]))
        right = (scores[held_out] >= threshold) == same[held_out]
        thresholds.append(threshold)
        accuracies.append(100 * float(right.mean()))
    return Verification(accuracies, thresholds, roc_curve(scores, same))
