"""Expectation margin and histogram intersection against loops."""
import numpy as np
import pytest

from mmcrrcd.errors import InputError
from mmcrrcd.evaluation.margins import BINS, expectation_margin, histogram_intersection, histograms


def similarities(seed: int, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    same = rng.random(n) < 0.4
    return (rng.normal(0, 0.3, n) + 0.3 * same).clip(-1, 1), same


def test_margin_is_the_difference_of_two_means():
    scores, same = similarities(0)
    positive, negative = ([s for s, truth in zip(scores.tolist(), same) if truth == kind] for kind in (True, False))
    expected = sum(positive) / len(positive) - sum(negative) / len(negative)
    assert expectation_margin(scores, same) == pytest.approx(expected) and expected > 0.2


def slow_histogram(scores: list[float]) -> list[float]:
    counts = [0] * BINS
    for score in scores:
        k = 0
        while k < BINS - 1 and score >= -1 + 2 * (k + 1) / BINS:
            k += 1
        counts[k] += 1
    return [count / len(scores) for count in counts]


@pytest.mark.parametrize('seed', range(3))
def test_histograms_and_their_intersection_are_those_of_loops(seed):
    scores, same = similarities(seed)
    expected = [slow_histogram(scores[same == kind].tolist()) for kind in (True, False)]
    positive, negative, edges = histograms(scores, same)
    np.testing.assert_allclose([positive, negative], expected, atol=1e-12)
    np.testing.assert_allclose(edges, [-1 + 2 * k / BINS for k in range(BINS + 1)], atol=1e-12)
    common = sum(min(a, b) for a, b in zip(*expected))
    assert histogram_intersection(scores, same) == pytest.approx(common) and 0.2 < common < 0.9


@pytest.mark.parametrize('scores, margin, common', [
    ([1, 1, -1, -1], 2, 0), ([.3, .5, .3, .5], 0, 1), ([.3, .5, .3, .7], -.1, .5), ([1 + 1e-15, 1, 1, -1 - 1e-15], 1, .5)])
def test_extremes(scores, margin, common):
    same = np.array([True, True, False, False])
    assert expectation_margin(np.array(scores), same) == pytest.approx(margin)
    assert histogram_intersection(np.array(scores), same) == pytest.approx(common)


def test_numbers_of_pairs_do_not_matter():
    """Each kind of pairs is a distribution of its own."""
    scores, same = similarities(1)
    double = np.concatenate([scores, scores[~same]]), np.concatenate([same, same[~same]])
    assert histogram_intersection(*double) == pytest.approx(histogram_intersection(scores, same))
    assert expectation_margin(*double) == pytest.approx(expectation_margin(scores, same))


@pytest.mark.parametrize('function', [expectation_margin, histogram_intersection])
def test_bad_input(function):
    with pytest.raises(InputError, match='pairs of one person and of two are needed, got 2 and 0'):
        function(np.array([.1, .2]), np.array([True, True]))
    with pytest.raises(InputError, match='1 of 2 similarities are not finite'):
        function(np.array([.1, np.nan]), np.array([True, False]))
