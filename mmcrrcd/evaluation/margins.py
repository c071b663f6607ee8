"""How far the similarities of positive and of negative pairs are apart: the two numbers of Figure 5 of the paper."""
import numpy as np

from .verification import check_pairs

# The paper does not give the bins of its histograms, and the intersection depends on them: finer bins make it smaller.
BINS = 100


def expectation_margin(scores: np.ndarray, same: np.ndarray) -> float:
    """Mean cosine of the positive pairs minus that of the negative ones, -2 to 2; larger is better.

    Args:
        scores: (P,) cosines.
        same: (P,) bool, positive pairs.
    """
    scores, same = check_pairs(scores, same)
    return float(scores[same].mean() - scores[~same].mean())


def histograms(scores: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares of the positive and of the negative pairs in each bin, with sum 1, and the edges (BINS + 1,) from -1 to 1.

    A bin holds its lower edge, the last one also its upper.
    """
    scores, same = check_pairs(scores, same)
    cosines = scores.clip(-1, 1)                         # rounding goes beyond
    positive, edges = np.histogram(cosines[same], BINS, (-1, 1))
    negative, _ = np.histogram(cosines[~same], BINS, (-1, 1))
    return positive / positive.sum(), negative / negative.sum(), edges


def histogram_intersection(scores: np.ndarray, same: np.ndarray) -> float:
    """Share that the two histograms have in common: the sum over the bins of the smaller share. 0: apart, 1: the same."""
    positive, negative, _ = histograms(scores, same)
    return float(np.minimum(positive, negative).sum())
