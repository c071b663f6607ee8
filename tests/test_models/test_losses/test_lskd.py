"""Logit standardization against a plain version and the published values."""
import numpy as np
import pytest
import torch
from distil_step import random, step
from mmcrrcd.errors import InputError
from mmcrrcd.models import LSKDLoss, lskd_loss
from utils import GOLDEN


def slow(student, teacher, temperature):
    def probabilities(row):
        z = (row - row.mean()) / (1e-7 + row.std(ddof=1)) / temperature
        return np.exp(z) / np.exp(z).sum()

    rows = zip(student.numpy(), teacher.numpy())
    divergences = [(p * np.log(p / q)).sum() for q, p in ((probabilities(s), probabilities(t)) for s, t in rows)]
    return temperature**2 * np.mean(divergences)


@pytest.mark.parametrize('images, temperature', [(5, 2.0), (3, 0.7), (1, 4.0)])
def test_equals_a_plain_version(images, temperature):
    student, teacher = 3 * random(images, 7), 3 * random(images, 7, seed=1) + 1
    assert lskd_loss(student, teacher, temperature).item() == pytest.approx(slow(student, teacher, temperature), abs=1e-12)


@pytest.mark.parametrize('temperature', [2, 4])
def test_equals_the_published_values(temperature):
    values = np.load(GOLDEN / 'modern.npz')
    student, teacher = (torch.from_numpy(values[f'logits_{kind}']) for kind in 'st')
    np.testing.assert_allclose(lskd_loss(student, teacher, temperature), values[f'out_lskd_T{temperature}'], rtol=0, atol=1e-9)


def test_range_and_shift_of_the_logits_do_not_matter():
    student, teacher = random(4, 6), random(4, 6, seed=1)
    torch.testing.assert_close(lskd_loss(9 * student - 2, teacher, 2), lskd_loss(student, teacher, 2), rtol=1e-5, atol=0)


def test_gradients():
    student, teacher = random(3, 5).requires_grad_(), random(3, 5, seed=1)
    assert torch.autograd.gradcheck(lambda s: lskd_loss(s, teacher, 2), student)


def test_equal_logits_of_all_classes_have_finite_gradients():
    student = torch.zeros(2, 5, requires_grad=True)
    lskd_loss(student, torch.zeros(2, 5), 2).backward()
    lskd_loss(student, random(2, 5).float(), 2).backward()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize('amp', [False, True])
def test_a_step(amp):
    step(dict(type='mmcrrcd.LSKDLoss'), amp=amp)


def test_a_temperature_that_cannot_be_is_refused():
    with pytest.raises(InputError, match='temperature is a positive number, got 0'):
        LSKDLoss(temperature=0)
