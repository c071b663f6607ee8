"""Variational information distillation against loops and the published value; the variances learn."""
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from distil_step import random, step, outputs
from mmcrrcd.errors import InputError
from mmcrrcd.models import VIDLoss, vid_loss
from utils import GOLDEN


def slow(prediction, target, alpha, eps=1e-5):
    terms = []
    for image_p, image_t in zip(prediction, target):
        for c, a in enumerate(alpha.tolist()):
            variance = math.log(1 + math.exp(a)) + eps
            for p, t in zip(image_p[c].flatten().tolist(), image_t[c].flatten().tolist()):
                terms.append(((p - t)**2 / variance + math.log(variance)) / 2)
    return sum(terms) / len(terms)


def test_equals_loops():
    arguments = random(2, 3, 4, 2), random(2, 3, 4, 2, seed=1), random(3, seed=2)
    assert vid_loss(*arguments).item() == pytest.approx(slow(*arguments), abs=1e-12)


def test_equals_the_published_value():
    reference = np.load(GOLDEN / 'reference.npz')
    value = vid_loss(*(torch.from_numpy(reference[key]) for key in ('vid_pred', 'vid_target', 'vid_log_scale')))
    np.testing.assert_allclose(value, reference['out_vid'], rtol=0, atol=1e-9)


@pytest.mark.parametrize('variance', [1e-3, 5., 60., 1e30])
def test_the_variances_start_where_they_are_told(variance):
    loss = VIDLoss(variance=variance)
    loss.build(*outputs([random(2, 2, 4, 4)] * 2, [random(2, 3, 4, 4)] * 2)[:2])
    torch.testing.assert_close(F.softplus(loss.alphas[0]) + loss.eps, torch.full((3, ), variance))


def test_module_regresses_each_stage_and_sums():
    """The stem is left out; the teacher's feature maps are averaged down to the student's size; the variances start at 5."""
    maps_s = [random(3, 2, 4, 4), random(3, 2, 4, 4, seed=1), random(3, 4, 2, 2, seed=2)]
    maps_t = [random(3, 3, 8, 8, seed=3), random(3, 5, 8, 8, seed=4), random(3, 6, 4, 4, seed=5)]
    student, teacher, batch = outputs(maps_s, maps_t)
    student, teacher = student._replace(image_size=(4, 4)), teacher._replace(image_size=(8, 8))
    loss = VIDLoss()
    loss.build(student, teacher)
    loss.double()
    total = 0
    for stage, weights in enumerate(loss.regressors, 1):
        first, second, third = (weights[i].weight[:, :, 0, 0] for i in (0, 2, 4))
        assert first.shape[0] == second.shape[0] == third.shape[0] == maps_t[stage].shape[1]
        size = maps_s[stage].shape[2]
        target, prediction = (torch.zeros(3, len(third), size, size).double() for _ in range(2))
        for y in range(size):
            for x in range(size):
                hidden = (second @ (first @ maps_s[stage][..., y, x].T).clamp(min=0)).clamp(min=0)
                prediction[..., y, x] = (third @ hidden).T
                target[..., y, x] = maps_t[stage][..., 2 * y:2 * y + 2, 2 * x:2 * x + 2].mean((2, 3))
        alpha = torch.full((len(third), ), math.log(math.exp(5 - 1e-5) - 1)).double()
        total += slow(prediction, target, alpha)
    assert len(loss.regressors) == 2
    assert loss(student, teacher, batch).item() == pytest.approx(total, abs=1e-6)     # alpha has been float32


def test_gradients():
    inputs = random(2, 3, 2, 2).requires_grad_(), random(2, 3, 2, 2, seed=1), random(3, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(vid_loss, inputs)


@pytest.mark.parametrize('resolution, amp', [(8, False), (8, True), (None, False)])
def test_a_step(resolution, amp):
    model, _ = step(dict(type='mmcrrcd.VIDLoss'), resolution, amp)
    assert [tuple(r[0].weight.shape[:2]) for r in model.losses['method'].regressors] == [(16, 8), (24, 16), (32, 16)]
    assert 'losses.method.alphas.2' in model.state_dict()


@pytest.mark.parametrize('settings, message', [
    (dict(variance=-1), 'variance is a positive number, got -1'), (dict(eps=0), 'eps is a positive number, got 0'),
    (dict(variance=1e-5), 'variance is above eps'), (dict(variance='1'), "variance is a positive number, got '1'")])
def test_a_variance_that_cannot_be_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        VIDLoss(**settings)
