"""Neuron selectivity transfer against loops and the published values."""
import math

import numpy as np
import pytest
import torch
from distil_step import build, network_without_maps, random, step, outputs
from mmcrrcd.errors import InputError
from mmcrrcd.models import NSTLoss, nst_loss
from torch.nn import functional as F
from utils import GOLDEN


def slow(student, teacher):
    def channels(image):
        rows = [c.flatten().tolist() for c in image]
        return [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in rows]

    def kernel(a, b):
        return sum(sum(x * y for x, y in zip(i, j))**2 for i in a for j in b) / len(a) / len(b)

    total = 0
    for image_s, image_t in zip(student, teacher):
        s, t = channels(image_s), channels(image_t)
        total += kernel(t, t) + kernel(s, s) - 2 * kernel(s, t)
    return total / len(student)


@pytest.mark.parametrize('shape', [(2, 3, 4, 5), (2, 6, 2, 1), (2, 4, 2, 2)])     # few channels, few pixels, between
def test_equals_loops(shape):
    student, teacher = random(*shape), random(shape[0], shape[1] + 2, *shape[2:], seed=1)
    assert nst_loss(student, teacher).item() == pytest.approx(slow(student, teacher), rel=1e-10)


def test_equals_the_published_values():
    data = np.load(GOLDEN / 'reference.npz')
    maps = [[torch.from_numpy(data[f'map_{kind}{i}']) for kind in 'st'] for i in range(3)]
    np.testing.assert_allclose([nst_loss(*pair) for pair in maps], data['out_nst_per_stage'], rtol=0, atol=1e-9)


@pytest.mark.parametrize('shape', [(2, 3, 2, 3), (2, 5, 2, 1)])
def test_gradients(shape):
    student, teacher = random(*shape).requires_grad_(), random(shape[0], 4, *shape[2:], seed=1)
    assert torch.autograd.gradcheck(lambda s: nst_loss(s, teacher), student)


def test_stages_are_summed_at_the_smaller_size():
    maps_s = [random(2, 2, 8, 8), random(2, 3, 8, 8, seed=1), random(2, 4, 2, 2, seed=2)]
    maps_t = [random(2, 5, 8, 8, seed=3), random(2, 4, 8, 8, seed=4), random(2, 6, 2, 2, seed=5)]
    student, teacher, batch = outputs(maps_s, maps_t)
    loss = NSTLoss()
    loss.build(student, teacher)
    low = [F.avg_pool2d(x, 2) if x.shape[2] > 2 else x for x in maps_s]
    expected = slow(maps_s[1], maps_t[1]) + slow(maps_s[2], maps_t[2])
    assert loss(student, teacher, batch).item() == pytest.approx(expected, rel=1e-10)
    expected = slow(low[1], F.avg_pool2d(maps_t[1], 2)) + slow(maps_s[2], maps_t[2])
    assert loss(student._replace(feature_maps=tuple(low)), teacher, batch).item() == pytest.approx(expected, rel=1e-10)


def test_networks_without_maps_are_refused():
    with pytest.raises(InputError, match='this teacher gives none'):
        build(dict(type='mmcrrcd.NSTLoss'), teacher=network_without_maps())


@pytest.mark.parametrize('amp', [False, True])
def test_a_step(amp):
    step(dict(type='mmcrrcd.NSTLoss'), amp=amp)
