"""Attention transfer against loops and the published values."""
import math

import numpy as np
import pytest
import torch
from distil_step import random, step, outputs
from mmcrrcd.models import ATLoss, attention_loss
from utils import GOLDEN


def slow(student, teacher):
    def attention(image):
        channels, height, width = image.shape
        places = [(y, x) for y in range(height) for x in range(width)]
        values = [sum(image[c, y, x].item()**2 for c in range(channels)) / channels for y, x in places]
        norm = math.sqrt(sum(v**2 for v in values))
        return [v / norm for v in values]

    squares = [(a - b)**2 for s, t in zip(student, teacher) for a, b in zip(attention(s), attention(t))]
    return sum(squares) / len(squares)


def test_equals_loops():
    student, teacher = random(3, 2, 4, 3), random(3, 5, 4, 3, seed=1)
    assert attention_loss(student, teacher).item() == pytest.approx(slow(student, teacher), abs=1e-12)


def test_equals_the_published_values():
    reference = np.load(GOLDEN / 'reference.npz')
    maps = [[torch.from_numpy(reference[f'map_{kind}{i}']) for i in range(3)] for kind in 'st']
    values = [attention_loss(*pair) for pair in zip(*maps)]
    np.testing.assert_allclose(values, reference['out_at_per_stage'], rtol=0, atol=1e-9)

    stem = torch.zeros(8, 1, 16, 16)
    student, teacher, batch = outputs([stem, *maps[0]], [stem, *maps[1]])
    loss = ATLoss()
    loss.build(student, teacher)
    np.testing.assert_allclose(loss(student, teacher, batch), reference['out_at_per_stage'].sum(), rtol=0, atol=1e-9)


def repeat(x):
    """Each pixel four times."""
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_the_larger_map_is_averaged_before_attention():
    stem, stage_s, stage_t = random(3, 1, 4, 4), random(3, 2, 4, 4, seed=1), random(3, 5, 8, 8, seed=2)
    student, teacher, batch = outputs([stem, stage_s], [random(3, 1, 8, 8, seed=3), stage_t])
    student, teacher = student._replace(image_size=(4, 4)), teacher._replace(image_size=(8, 8))
    loss = ATLoss()
    loss.build(student, teacher)
    smaller = torch.zeros(3, 5, 4, 4).double()
    for y in range(4):
        for x in range(4):
            smaller[..., y, x] = stage_t[..., 2 * y:2 * y + 2, 2 * x:2 * x + 2].mean((2, 3))
    expected = slow(repeat(stage_s), repeat(smaller))          # as large as if both were of the teacher's size
    assert loss(student, teacher, batch).item() == pytest.approx(expected, abs=1e-12)


def test_a_copy_and_a_multiple_of_the_teacher_cost_nothing():
    teacher = random(3, 4, 2, 2)
    assert attention_loss(7 * teacher, teacher).item() == pytest.approx(0, abs=1e-30)


def test_gradients():
    assert torch.autograd.gradcheck(attention_loss, (random(2, 3, 2, 2).requires_grad_(), random(2, 4, 2, 2, seed=1)))


@pytest.mark.parametrize('resolution, amp', [(8, False), (8, True), (None, False)])
def test_a_step(resolution, amp):
    model, _ = step(dict(type='mmcrrcd.ATLoss'), resolution, amp)
    assert model.losses['method'].pairs == [(1, 1), (2, 2), (3, 3)]
