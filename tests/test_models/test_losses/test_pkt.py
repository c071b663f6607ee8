"""Probabilistic knowledge transfer against loops and the published value."""
import math

import numpy as np
import pytest
import torch
from distil_step import random, step, outputs
from mmcrrcd.models import PKTLoss, pkt_loss
from utils import GOLDEN


def slow(student, teacher, eps=1e-7):
    def probabilities(x):
        b = range(len(x))
        norms = [math.sqrt(sum(v**2 for v in row)) for row in x.tolist()]
        kernel = [[((x[i] @ x[j]).item() / (norms[i] + eps) / (norms[j] + eps) + 1) / 2 for j in b] for i in b]
        return [[v / sum(row) for v in row] for row in kernel]

    ours, theirs, b = probabilities(student), probabilities(teacher), range(len(student))
    return sum(theirs[i][j] * math.log((theirs[i][j] + eps) / (ours[i][j] + eps)) for i in b for j in b) / len(b)**2


def test_equals_loops():
    student, teacher = random(5, 3), random(5, 6, seed=1)
    assert pkt_loss(student, teacher).item() == pytest.approx(slow(student, teacher), abs=1e-12)


def test_equals_the_published_value():
    reference = np.load(GOLDEN / 'reference.npz')
    student, teacher = (torch.from_numpy(reference[key]) for key in ('emb_s', 'emb_t'))
    value = PKTLoss()(*outputs(embedding_s=student, embedding_t=teacher))
    np.testing.assert_allclose(value, reference['out_pkt'], rtol=0, atol=1e-9)


def test_gradients():
    assert torch.autograd.gradcheck(pkt_loss, (random(4, 3).requires_grad_(), random(4, 5, seed=1)))


def test_an_embedding_of_zeros_gives_finite_values():
    student = torch.zeros(4, 3, requires_grad=True)
    value = pkt_loss(student, random(4, 5).float())
    gradient, = torch.autograd.grad(value, student)
    assert value.isfinite() and gradient.isfinite().all()


@pytest.mark.parametrize('resolution, amp', [(8, False), (8, True), (None, False)])
def test_a_step(resolution, amp):
    step(dict(type='mmcrrcd.PKTLoss'), resolution, amp)
