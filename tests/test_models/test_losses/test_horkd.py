"""Hybrid order relational distillation against loops over samples, pairs and triplets."""
import pytest
import torch
from distil_step import random, step

from mmcrrcd.errors import InputError
from mmcrrcd.models import HORKDLoss, horkd_losses
from mmcrrcd.structures import Batch, NetworkOutput


def huber(x):
    return x**2 / 2 if abs(x) < 1 else abs(x) - 0.5


def slow(student, regressed, teacher):
    n, width = teacher.shape

    def pairs(x):
        distance = {(i, j): (x[i] - x[j]).norm().item() for i in range(n) for j in range(n)}
        mean = sum(distance.values()) / (n * (n - 1))
        return {key: value / mean for key, value in distance.items()}

    def triplets(x):
        angle = {}
        for i in range(n):
            for j in range(n):
                for k in range(n):
                    a, b = x[j] - x[i], x[k] - x[i]
                    angle[i, j, k] = 0 if i in (j, k) else (a @ b / (a.norm() * b.norm())).item()
        return angle

    first = sum((regressed[i, d] - teacher[i, d]).item()**2 for i in range(n) for d in range(width)) / (n * width)
    others = []
    for relations in (pairs, triplets):
        ours, theirs = relations(student), relations(teacher)
        others.append(sum(huber(ours[key] - theirs[key]) for key in ours) / len(ours))
    return first, *others


def test_equals_loops():
    student, regressed, teacher = random(6, 3), random(6, 4, seed=1), random(6, 4, seed=2)
    student[0] *= 20                                       # the linear part of the Huber loss, too
    values = horkd_losses(student, regressed, teacher)
    assert [v.item() for v in values] == pytest.approx(slow(student, regressed, teacher), abs=1e-12)


def test_gradients():
    teacher = random(5, 4, seed=2)
    inputs = random(5, 3).requires_grad_(), random(5, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, r: horkd_losses(s, r, teacher), inputs)


def test_only_the_first_order_sees_place_size_and_turn():
    """A rotated, scaled and shifted copy of the teacher's embeddings has the same pairs and triplets."""
    teacher = random(6, 3)
    turn = torch.linalg.qr(random(3, 3, seed=1)).Q
    copy = 5 * teacher @ turn + 2
    first, second, third = horkd_losses(copy, copy, teacher)
    assert first > 1 and second < 1e-24 and third < 1e-24


@pytest.mark.parametrize('weights', [(1.0, 1.0, 2.0), (0.5, 0.0, 3.0)])
def test_module_regresses_and_weighs(weights):
    student, teacher = (NetworkOutput((), random(6, d, seed=d), torch.zeros(6, 3)) for d in (3, 5))
    loss = HORKDLoss(*weights)
    loss.build(student, teacher)
    loss.double()
    regressed = student.embedding @ loss.map.weight.T + loss.map.bias
    expected = slow(student.embedding, regressed.detach(), teacher.embedding)
    value = loss(student, teacher, Batch(torch.zeros(6, dtype=torch.long), None))
    assert value.item() == pytest.approx(sum(w * e for w, e in zip(weights, expected)), abs=1e-12)
    assert {k: v.item() for k, v in loss.log_vars.items()} == pytest.approx(
        dict(zip(('first_order', 'second_order', 'third_order'), expected)), abs=1e-12)
    assert not any(v.requires_grad for v in loss.log_vars.values())


def test_the_weights_by_default_are_in_the_proportion_of_rkd():
    first, second, third = HORKDLoss().order_weights.values()
    assert first == second == third / 2 == 1


@pytest.mark.parametrize('resolution, amp', [(8, False), (8, True), (None, False)])
def test_a_step(resolution, amp):
    model, _ = step(dict(type='mmcrrcd.HORKDLoss'), resolution, amp)
    assert model.losses['method'].map.weight.shape == (32, 16)


@pytest.mark.parametrize('order', ['first', 'second', 'third'])
def test_negative_weights_are_refused(order):
    with pytest.raises(InputError, match='not negative') as error:
        HORKDLoss(**{order: -1.0})
    assert '\n' not in str(error.value)
