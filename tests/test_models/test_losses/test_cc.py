"""Correlation congruence, as the published results compute it, against loops and the published value."""
import numpy as np
import pytest
import torch
from distil_step import random, step, outputs
from mmcrrcd.models import CCLoss, cc_loss
from utils import GOLDEN


def slow(student, teacher):
    b, width = student.shape
    total = 0
    for i in range(b - 1):
        for c in range(width):
            total += abs((student[i, c] - teacher[i, c]).item()) * abs((student[i + 1, c] - teacher[i + 1, c]).item())
    return total / (b - 1)


def test_equals_loops():
    student, teacher = random(5, 3), random(5, 3, seed=1)
    assert cc_loss(student, teacher).item() == pytest.approx(slow(student, teacher), abs=1e-12)


def test_equals_the_published_value():
    reference = np.load(GOLDEN / 'reference.npz')
    value = cc_loss(*(torch.from_numpy(reference[key]) for key in ('emb_s', 'emb_t')))
    np.testing.assert_allclose(value, reference['out_cc'], rtol=0, atol=1e-9)


def test_module_embeds_both_linearly():
    student, teacher, batch = outputs(embedding_s=random(4, 3), embedding_t=random(4, 5, seed=1))
    loss = CCLoss(dim=7)
    loss.build(student, teacher)
    loss.double()
    ours = student.embedding @ loss.embed_student.weight.T + loss.embed_student.bias
    theirs = teacher.embedding @ loss.embed_teacher.weight.T + loss.embed_teacher.bias
    assert ours.shape == (4, 7)
    assert loss(student, teacher, batch).item() == pytest.approx(slow(ours, theirs), abs=1e-12)


def test_gradients():
    inputs = random(4, 3).requires_grad_(), random(4, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(cc_loss, inputs)


def test_a_batch_of_one_costs_nothing():
    assert cc_loss(random(1, 3), random(1, 3, seed=1)) == 0


@pytest.mark.parametrize('resolution, amp', [(8, False), (8, True), (None, False)])
def test_a_step(resolution, amp):
    model, _ = step(dict(type='mmcrrcd.CCLoss'), resolution, amp)
    loss = model.losses['method']
    assert loss.embed_student.weight.shape == (128, 16) and loss.embed_teacher.weight.shape == (128, 32)
