"""LFW's protocol, ROC and its numbers against loops, scikit-learn, and cases that one can do in the head."""
import numpy as np
import pytest

from mmcrrcd.errors import InputError
from mmcrrcd.evaluation.verification import roc_curve, verify


def pairs(seed: int, n: int = 200, decimals: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Overlapping similarities with many ties, and folds of unequal size and share of positives."""
    rng = np.random.default_rng(seed)
    same = rng.random(n) < 0.4
    return (rng.normal(0, 0.5, n) + 0.4 * same).round(decimals), same, rng.integers(10, size=n)


def slow_points(scores, same) -> list[tuple[float, int, int]]:
    """(threshold, false accepts, true accepts) at every distinct similarity."""
    points = [(float('inf'), 0, 0)]
    for threshold in sorted(set(scores.tolist()), reverse=True):
        accepted = [bool(truth) for score, truth in zip(scores.tolist(), same) if score >= threshold]
        points.append((threshold, accepted.count(False), accepted.count(True)))
    return points


def slow_accuracy(scores, same, threshold) -> float:
    return 100 * sum((score >= threshold) == truth for score, truth in zip(scores.tolist(), same.tolist())) / len(scores)


@pytest.mark.parametrize('decimals', [0, 1, 8])
def test_roc_is_that_of_a_loop_over_all_thresholds(decimals):
    scores, same, _ = pairs(0, decimals=decimals)
    roc = roc_curve(scores, same)
    points = zip(roc.thresholds.tolist(), roc.false_accepts.tolist(), roc.true_accepts.tolist(), strict=True)
    assert list(points) == slow_points(scores, same)


@pytest.mark.parametrize('decimals', [0, 1, 8])
def test_roc_and_auc_are_those_of_scikit_learn(decimals):
    metrics = pytest.importorskip('sklearn.metrics')
    scores, same, _ = pairs(1, decimals=decimals)
    roc = roc_curve(scores, same)
    for mine, theirs in zip((roc.far, roc.tar, roc.thresholds), metrics.roc_curve(same, scores, drop_intermediate=False),
                            strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12, atol=0)
    assert roc.auc() == pytest.approx(metrics.roc_auc_score(same, scores), abs=1e-12)


def test_auc_counts_pairs_of_pairs():
    scores, same, _ = pairs(2)
    wins = [(a > b) + 0.5 * (a == b) for a in scores[same] for b in scores[~same]]
    assert roc_curve(scores, same).auc() == pytest.approx(sum(wins) / len(wins), abs=1e-12)


@pytest.mark.parametrize('seed', range(3))
def test_folds_are_those_of_loops(seed):
    scores, same, fold = pairs(seed)
    result = verify(scores, same, fold)
    for number, accuracy, threshold in zip(range(10), result.accuracies, result.thresholds, strict=True):
        others, own = fold != number, fold == number
        candidates = [float('inf'), *sorted(set(scores[others].tolist()), reverse=True)]
        expected = max(candidates, key=lambda t: slow_accuracy(scores[others], same[others], t))      # the first of equals
        assert threshold == expected and accuracy == pytest.approx(slow_accuracy(scores[own], same[own], expected))
    mean = sum(result.accuracies) / 10
    variance = sum((accuracy - mean)**2 for accuracy in result.accuracies) / 9
    assert result.accuracy == pytest.approx(mean) and result.standard_error == pytest.approx((variance / 10)**0.5)
    assert 50 < result.accuracy < 90 and len(set(result.accuracies)) > 3


def test_a_fold_has_no_say_in_its_own_threshold():
    scores, same, fold = pairs(4)
    before = verify(scores, same, fold)
    changed = np.where(fold == 3, -scores, scores)
    after = verify(changed, same, fold)
    assert after.thresholds[3] == before.thresholds[3]
    assert after.accuracies[3] != before.accuracies[3]


def slow_eer(scores, same) -> float:
    """The crossing of FAR and FRR = 1 - TAR, walked along the lines of the ROC in small steps."""
    positives, best = int(same.sum()), (2.0, None)
    points = [(false / (len(same) - positives), true / positives) for _, false, true in slow_points(scores, same)]
    for (far, tar), (next_far, next_tar) in zip(points, points[1:]):
        for step in range(1001):
            x, y = far + step / 1000 * (next_far - far), tar + step / 1000 * (next_tar - tar)
            best = min(best, (abs(x - (1 - y)), x))
    return best[1]


@pytest.mark.parametrize('decimals', [0, 1, 8])
def test_equal_error_rate_is_that_of_a_walk_along_the_curve(decimals):
    scores, same, _ = pairs(5, decimals=decimals)
    assert roc_curve(scores, same).eer() == pytest.approx(slow_eer(scores, same), abs=1e-3)


@pytest.mark.parametrize('scores, same, auc, eer', [
    ([.9, .8, .2, .1], [1, 1, 0, 0], 1, 0), ([.1, .2, .8, .9], [1, 1, 0, 0], 0, 1), ([.5] * 4, [1, 1, 0, 0], .5, .5),
    ([.9, .7, .8, .1], [1, 1, 0, 0], .75, .5)])
def test_numbers_that_one_can_do_in_the_head(scores, same, auc, eer):
    roc = roc_curve(np.array(scores), np.array(same))
    assert roc.auc() == pytest.approx(auc) and roc.eer() == pytest.approx(eer)


def test_tar_at_far_is_the_best_point_that_exists():
    rng = np.random.default_rng(6)
    same = np.arange(4000) % 4 == 0                      # 3,000 negatives, as in LFW
    scores = (rng.normal(0, 0.2, 4000) + 0.6 * same).round(2)
    roc = roc_curve(scores, same)
    for far in (1e-3, 1e-2, 0.3, 1.0):
        expected = max(true / 1000 for _, false, true in slow_points(scores, same) if false <= round(far * 3000, 6))
        assert roc.tar_at(far) == expected
    assert 0 < roc.tar_at(1e-3) < roc.tar_at(1e-2) < roc.tar_at(1.0) == 1


def test_a_far_below_one_false_accept_is_not_measurable():
    same = np.arange(2000) % 2 == 0
    roc = roc_curve(np.arange(2000.0), same)             # 1,000 negatives
    assert roc.tar_at(1e-3) is not None and roc.tar_at(0.999e-3) is None and roc.tar_at(1e-4) is None


def test_one_false_accept_is_allowed_at_one_in_all_negatives():
    """And where the first threshold already lets more in, nobody is accepted."""
    scores, same = np.array([5., 4, 3, 2, 1]), np.array([True, False, True, False, True])
    assert roc_curve(scores, same).tar_at(0.5) == pytest.approx(2 / 3)
    assert roc_curve(np.array([5., 5, 5, 2, 1]), np.array([True, False, False, False, True])).tar_at(1 / 3) == 0


def test_order_of_the_pairs_does_not_matter():
    scores, same, fold = pairs(7)
    order = np.random.default_rng(0).permutation(len(scores))
    first, second = verify(scores, same, fold), verify(scores[order], same[order], fold[order])
    assert (first.accuracies, first.thresholds) == (second.accuracies, second.thresholds)
    assert np.array_equal(first.roc.tar, second.roc.tar) and np.array_equal(first.roc.far, second.roc.far)


GOOD = dict(scores=[.9, .1, .8, .2], same=[1, 0, 1, 0], fold=[0, 0, 1, 1])


@pytest.mark.parametrize('changes, message', [
    (dict(same=[1, 1, 1, 1]), 'pairs of one person and of two are needed, got 4 and 0'),
    (dict(same=[0, 0, 0, 0]), 'pairs of one person and of two are needed, got 0 and 4'),
    (dict(scores=[.9, np.nan, .8, np.inf]), '2 of 4 similarities are not finite'),
    (dict(same=[1, 0, 1]), r'expected a similarity and an answer for each pair, got \(4,\) and \(3,\)'),
    (dict(fold=[0, 0, 0, 0]), r'expected two or more folds, one number for each of the 4 pairs, got 1 in \(4,\)'),
    (dict(fold=[0, 0, 1]), r'expected two or more folds, one number for each of the 4 pairs, got 2 in \(3,\)'),
    (dict(fold=[0, 1, 0, 1]), 'pairs of one person and of two are needed, got 0 and 2'),
])
def test_bad_input(changes, message):
    with pytest.raises(InputError, match=message):
        verify(**{name: np.array(value) for name, value in (GOOD | changes).items()})
