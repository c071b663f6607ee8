"""FitNet's hint against loops and the published value; which stage it takes; the regressor."""
import numpy as np
import pytest
import torch
from distil_step import build, network_without_maps, random, step, outputs
from mmcrrcd.errors import InputError
from mmcrrcd.models import FitNetLoss, hint_loss
from utils import GOLDEN


def slow(student, teacher):
    squares = [(s - t)**2 for s, t in zip(student.flatten().tolist(), teacher.flatten().tolist())]
    return sum(squares) / len(squares)


def test_equals_loops():
    student, teacher = random(3, 4, 2, 5), random(3, 4, 2, 5, seed=1)
    assert hint_loss(student, teacher).item() == pytest.approx(slow(student, teacher), abs=1e-12)


def test_equals_the_published_value():
    reference = np.load(GOLDEN / 'reference.npz')
    value = hint_loss(*(torch.from_numpy(reference[key]) for key in ('emb_s', 'emb_t')))
    np.testing.assert_allclose(value, reference['out_hint_mse'], rtol=0, atol=1e-9)


def test_module_is_convolution_norm_relu_and_the_formula():
    """The second stage after the stem; the teacher's feature map averaged down to the student's size."""
    maps_s = [random(4, c, n, n, seed=n) for c, n in ((2, 8), (3, 8), (3, 4), (5, 2))]
    maps_t = [random(4, c, n, n, seed=n + 1) for c, n in ((4, 16), (6, 16), (6, 8), (7, 4))]
    student, teacher, batch = outputs(maps_s, maps_t)
    student, teacher = student._replace(image_size=(8, 8)), teacher._replace(image_size=(16, 16))
    loss = FitNetLoss()
    loss.build(student, teacher)
    loss.double()
    conv, norm = loss.regressor[0], loss.regressor[1]
    with torch.no_grad():
        for parameter in (norm.weight, norm.bias):
            parameter.copy_(random(6, seed=8))
        value = loss(student, teacher, batch)

        target, output = torch.zeros(4, 6, 4, 4).double(), torch.zeros(4, 6, 4, 4).double()
        for y in range(4):
            for x in range(4):
                target[..., y, x] = maps_t[2][..., 2 * y:2 * y + 2, 2 * x:2 * x + 2].mean((2, 3))
                output[..., y, x] = maps_s[2][..., y, x] @ conv.weight[:, :, 0, 0].T
        for c in range(6):
            channel = output[:, c]
            channel = (channel - channel.mean()) / (channel.var(unbiased=False) + norm.eps).sqrt()
            output[:, c] = (channel * norm.weight[c] + norm.bias[c]).clamp(min=0)
    assert value.item() == pytest.approx(slow(output, target), abs=1e-9)


@pytest.mark.parametrize('sizes_s, sizes_t, chosen', [
    ((32, 32, 16, 8), (32, 32, 16, 8), (2, 2)),            # one family
    ((32, 16, 8, 4), (32, 32, 16, 8), (2, 3)),             # the student's second stage is at 8×8 px
    ((32, 32, 4, 2), (32, 32, 16, 2), (3, 3)),             # its second has no counterpart: first and third do
    ((32, 32, 4), (32, 32, 16), (1, 1))])
def test_the_stage(sizes_s, sizes_t, chosen):
    student, teacher, _ = outputs([torch.zeros(2, 3, n, n) for n in sizes_s], [torch.zeros(2, 3, n, n) for n in sizes_t])
    loss = FitNetLoss()
    loss.build(student, teacher)
    assert loss.pair == chosen


def test_gradients():
    student = random(2, 3, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(hint_loss, (student, random(2, 3, 2, 2, seed=1)))


@pytest.mark.parametrize('resolution, amp', [(8, False), (8, True), (None, False)])
def test_a_step(resolution, amp):
    model, _ = step(dict(type='mmcrrcd.FitNetLoss'), resolution, amp)
    assert model.losses['method'].regressor[0].weight.shape == (24, 16, 1, 1)
    assert 'losses.method.regressor.1.running_mean' in model.state_dict()


def test_a_network_without_maps_is_refused():
    with pytest.raises(InputError, match='this teacher gives none'):
        build(dict(type='mmcrrcd.FitNetLoss'), teacher=network_without_maps())
