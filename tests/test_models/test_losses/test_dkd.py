"""Decoupled distillation against loops, the published value, and the KD loss that it takes apart."""
import math

import numpy as np
import pytest
import torch
from distil_step import random, step
from mmcrrcd.errors import InputError
from mmcrrcd.models import DKDLoss, KDLoss, dkd_loss, kd_loss
from utils import GOLDEN


def slow_parts(student, teacher, label, temperature):
    """TCKD and NCKD of one sample, from the probabilities."""
    def softmax(z):
        e = [math.exp(x / temperature) for x in z]
        return [x / sum(e) for x in e]

    s, t = softmax(student.tolist()), softmax(teacher.tolist())
    target = t[label] * math.log(t[label] / s[label]) + (1 - t[label]) * math.log((1 - t[label]) / (1 - s[label]))
    rest = 0
    for c in range(len(s)):
        if c != label:
            of_teacher, of_student = t[c] / (1 - t[label]), s[c] / (1 - s[label])
            rest += of_teacher * math.log(of_teacher / of_student)
    return target, rest


@pytest.mark.parametrize('alpha, beta, temperature', [(1, 8, 4), (2, 0, 1), (0, 1, 2)])
def test_equals_loops(alpha, beta, temperature):
    student, teacher, labels = random(5, 7), random(5, 7, seed=1), torch.tensor([0, 6, 3, 3, 1])
    expected = 0
    for s, t, label in zip(student, teacher, labels.tolist()):
        target, rest = slow_parts(s, t, label, temperature)
        expected += temperature**2 * (alpha * target + beta * rest) / len(labels)
    value = dkd_loss(student, teacher, labels, alpha, beta, temperature)
    assert value.item() == pytest.approx(expected, rel=1e-10)


def test_equals_the_published_value():
    data = {k: torch.from_numpy(np.asarray(v)) for k, v in np.load(GOLDEN / 'reference.npz').items()}
    value = dkd_loss(data['logits_s'], data['logits_t'], data['labels'], 1, 8, 4)
    torch.testing.assert_close(value, data['out_dkd_a1_b8_T4'], rtol=0, atol=1e-9)


def test_kd_is_the_two_parts_coupled_by_the_teachers_confidence():
    student, teacher, label = random(1, 6), random(1, 6, seed=1), torch.tensor([2])
    beta = 1 - (teacher / 4).softmax(1)[0, 2].item()
    torch.testing.assert_close(dkd_loss(student, teacher, label, 1, beta, 4), kd_loss(student, teacher, 4), rtol=1e-10, atol=0)


def test_a_teacher_without_doubt_gives_finite_gradients():
    student, teacher = torch.zeros(2, 4, requires_grad=True), torch.tensor([[500., 0, 0, 0], [0, 0, 0, 500.]])
    value = dkd_loss(student, teacher, torch.tensor([0, 0]), 1, 8, 1)
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()


def test_gradients():
    student, teacher, labels = random(3, 5).requires_grad_(), random(3, 5, seed=1), torch.tensor([4, 0, 2])
    assert torch.autograd.gradcheck(lambda s: dkd_loss(s, teacher, labels, 1, 8, 4), student)


@pytest.mark.parametrize('amp', [False, True])
def test_a_step(amp):
    step(dict(type='mmcrrcd.DKDLoss', beta=2), amp=amp)


@pytest.mark.parametrize('loss', [KDLoss, DKDLoss])
@pytest.mark.parametrize('temperature', [0, -4, '4', None, True, float('inf')])
def test_a_temperature_that_cannot_be_is_refused(loss, temperature):
    with pytest.raises(InputError, match='temperature is a positive number'):
        loss(temperature=temperature)
