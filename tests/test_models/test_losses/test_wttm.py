"""WTTM against a plain version and the published values."""
import numpy as np
import pytest
import torch
from distil_step import random, step
from mmcrrcd.errors import InputError
from mmcrrcd.models import WTTMLoss, kd_loss, wttm_loss
from utils import GOLDEN


def slow(student, teacher, gamma):
    def softmax(row):
        return np.exp(row) / np.exp(row).sum()

    total = 0
    for s, t in zip(student.numpy(), teacher.numpy()):
        power = softmax(t)**gamma
        q = power / power.sum()
        total += power.sum() * (q * np.log(q / softmax(s))).sum()
    return total / len(student)


@pytest.mark.parametrize('images, gamma', [(5, 0.1), (3, 0.2), (1, 1.0), (4, 2.0)])
def test_equals_a_plain_version(images, gamma):
    student, teacher = 3 * random(images, 6), 3 * random(images, 6, seed=1)
    assert wttm_loss(student, teacher, gamma).item() == pytest.approx(slow(student, teacher, gamma), abs=1e-12)


@pytest.mark.parametrize('gamma', [0.1, 0.2])
def test_equals_the_published_values(gamma):
    values = np.load(GOLDEN / 'modern.npz')
    student, teacher = (torch.from_numpy(values[f'logits_{kind}']) for kind in 'st')
    np.testing.assert_allclose(wttm_loss(student, teacher, gamma), values[f'out_wttm_{gamma}'], rtol=0, atol=1e-9)


def test_is_kd_without_temperature_where_the_exponent_is_one():
    student, teacher = random(4, 6), random(4, 6, seed=1)
    torch.testing.assert_close(wttm_loss(student, teacher, 1), kd_loss(student, teacher, 1))


def test_gradients():
    student, teacher = random(3, 5).requires_grad_(), random(3, 5, seed=1)
    assert torch.autograd.gradcheck(lambda s: wttm_loss(s, teacher, 0.1), student)


def test_a_teacher_without_doubt_gives_finite_gradients():
    student = torch.zeros(2, 4, requires_grad=True)
    value = wttm_loss(student, torch.tensor([[9000., 0, 0, 0], [0, 0, 0, 9000.]]), 0.1)
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()


@pytest.mark.parametrize('amp', [False, True])
def test_a_step(amp):
    step(dict(type='mmcrrcd.WTTMLoss'), amp=amp)


def test_an_exponent_that_cannot_be_is_refused():
    with pytest.raises(InputError, match='gamma is a positive number, got 0'):
        WTTMLoss(gamma=0)
