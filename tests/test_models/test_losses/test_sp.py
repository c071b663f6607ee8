"""Similarity-preserving distillation against loops and the published values."""
import math

import numpy as np
import pytest
import torch
from distil_step import build, network_without_maps, random, step, outputs
from mmcrrcd.errors import InputError
from mmcrrcd.models import SPLoss, sp_loss
from utils import GOLDEN


def slow(student, teacher):
    def similarity(x):
        rows = x.flatten(1).tolist()
        gram = [[sum(p * q for p, q in zip(row, other)) for other in rows] for row in rows]
        return [[v / math.sqrt(sum(w**2 for w in row)) for v in row] for row in gram]

    ours, theirs, b = similarity(student), similarity(teacher), len(student)
    return sum((ours[i][j] - theirs[i][j])**2 for i in range(b) for j in range(b)) / b**2


def test_equals_loops():
    student, teacher = random(4, 2, 2, 2), random(4, 3, 4, 4, seed=1)
    assert sp_loss(student, teacher).item() == pytest.approx(slow(student, teacher), abs=1e-12)


def test_equals_the_published_values():
    reference = np.load(GOLDEN / 'reference.npz')
    maps = [[torch.from_numpy(reference[f'map_{kind}{i}']) for i in range(3)] for kind in 'st']
    values = [sp_loss(*pair) for pair in zip(*maps)]
    np.testing.assert_allclose(values, reference['out_sp_per_stage'], rtol=0, atol=1e-9)


def test_module_compares_the_last_maps():
    maps_s, maps_t = [random(4, 2, 2, 2), random(4, 3, 1, 1, seed=1)], [random(4, 2, 4, 4, seed=2), random(4, 5, 2, 2, seed=3)]
    value = SPLoss()(*outputs(maps_s, maps_t))
    assert value.item() == pytest.approx(slow(maps_s[-1], maps_t[-1]), abs=1e-12)


def test_gradients():
    assert torch.autograd.gradcheck(sp_loss, (random(3, 2, 2, 2).requires_grad_(), random(3, 4, 1, 1, seed=1)))


@pytest.mark.parametrize('resolution, amp', [(8, False), (8, True), (None, False)])
def test_a_step(resolution, amp):
    step(dict(type='mmcrrcd.SPLoss'), resolution, amp)


def test_a_network_without_maps_is_refused():
    with pytest.raises(InputError, match='this teacher gives none'):
        build(dict(type='mmcrrcd.SPLoss'), teacher=network_without_maps())
