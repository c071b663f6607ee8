"""Knowledge distillation against loops and its gradients by differences; the published values are in test_distiller.py."""
import math

import pytest
import torch
from distil_step import random
from mmcrrcd.models import kd_loss


def slow(student, teacher, temperature):
    total = 0
    for z_s, z_t in zip(student.tolist(), teacher.tolist()):
        soft_s, soft_t = ([math.exp(z / temperature) / sum(math.exp(w / temperature) for w in row) for z in row]
                          for row in (z_s, z_t))
        total += sum(p * math.log(p / q) for p, q in zip(soft_t, soft_s))
    return temperature**2 * total / len(student)


@pytest.mark.parametrize('temperature', [1.0, 4.0])
def test_equals_loops(temperature):
    student, teacher = 3 * random(4, 5), 3 * random(4, 5, seed=1)
    assert kd_loss(student, teacher, temperature).item() == pytest.approx(slow(student, teacher, temperature), abs=1e-12)


def test_gradients():
    assert torch.autograd.gradcheck(lambda z: kd_loss(z, random(3, 4, seed=1), 4.0), random(3, 4).requires_grad_())
