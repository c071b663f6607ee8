"""Silhouette and nearest neighbors against their definitions, and a map that can be drawn again."""
from collections import Counter

import numpy as np
import pytest

from mmcrrcd.evaluation.clusters import knn_accuracy, silhouette, tsne


@pytest.fixture(scope='module')
def clouds():
    rng = np.random.default_rng(0)
    labels = np.arange(45) % 3
    return (rng.normal(0, 1, (3, 6))[labels] + rng.normal(0, 0.9, (45, 6))).astype(np.float32), labels


def distances(x):
    return np.array([[np.sqrt(((a - b) ** 2).sum()) for b in x] for a in x.astype(float)])


def test_silhouette(clouds):
    x, labels = clouds
    d, values = distances(x), []
    for i, k in enumerate(labels):
        own = np.mean([d[i, j] for j in range(len(x)) if labels[j] == k and j != i])
        other = min(np.mean(d[i, labels == c]) for c in range(3) if c != k)
        values.append((other - own) / max(own, other))
    assert 0.05 < np.mean(values) < 0.9
    assert silhouette(x, labels) == pytest.approx(np.mean(values), abs=1e-5)


@pytest.mark.parametrize('neighbors', [1, 5])
def test_nearest_neighbors_without_the_sample_itself(clouds, neighbors):
    x, labels = clouds
    d, right = distances(x), 0
    for i, k in enumerate(labels):
        near = sorted((j for j in range(len(x)) if j != i), key=lambda j, i=i: d[i, j])[:neighbors]
        counts = Counter(labels[near])
        right += min(counts, key=lambda c, counts=counts: (-counts[c], c)) == k
    accuracy = knn_accuracy(x, labels, neighbors)
    assert accuracy == pytest.approx(100 * right / len(x)) and 40 < accuracy < 100


def test_map_keeps_clusters_and_is_the_same_for_the_same_seed():
    rng = np.random.default_rng(1)
    labels = np.arange(40) % 2
    x = (rng.normal(0, 1, (40, 5)) + 30 * labels[:, None]).astype(np.float32)
    points = tsne(x, seed=0, perplexity=8)
    assert points.shape == (40, 2) and knn_accuracy(points, labels, 3) == 100
    assert np.array_equal(points, tsne(x, seed=0, perplexity=8))
