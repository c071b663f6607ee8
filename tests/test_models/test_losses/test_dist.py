"""DIST against a plain version and the published values."""
import numpy as np
import pytest
import torch
from distil_step import outputs, random, step
from mmcrrcd.errors import InputError
from mmcrrcd.models import DISTLoss, dist_loss
from utils import GOLDEN


def slow(student, teacher, beta, gamma, temperature):
    def softmax(logits):
        powers = np.exp(logits.numpy() / temperature)
        return powers / powers.sum(1, keepdims=True)

    def distance(a, b):
        a, b = a - a.mean(), b - b.mean()
        return 1 - a @ b / (np.sqrt(a @ a) * np.sqrt(b @ b) + 1e-8)

    ours, theirs = softmax(student), softmax(teacher)
    inter = np.mean([distance(ours[i], theirs[i]) for i in range(ours.shape[0])])
    intra = np.mean([distance(ours[:, c], theirs[:, c]) for c in range(ours.shape[1])])
    return temperature**2 * (beta * inter + gamma * intra)


@pytest.mark.parametrize('constants', [(1, 1, 1), (2, 2, 4), (0.5, 0, 1), (0, 3, 2)])
def test_equals_a_plain_version(constants):
    student, teacher = 5 * random(6, 4), 5 * random(6, 4, seed=1)
    assert dist_loss(student, teacher, *constants).item() == pytest.approx(slow(student, teacher, *constants), abs=1e-12)


@pytest.mark.parametrize('temperature', [1, 4])
def test_equals_the_published_values(temperature):
    values = np.load(GOLDEN / 'modern.npz')
    student, teacher = (torch.from_numpy(values[f'logits_{kind}']) for kind in 'st')
    value = dist_loss(student, teacher, 1, 1, temperature)
    np.testing.assert_allclose(value, values[f'out_dist_T{temperature}_b1_g1'], rtol=0, atol=1e-9)


def test_the_module_has_the_published_constants():
    student, teacher, batch = outputs(embedding_s=random(5, 2), embedding_t=random(5, 3))
    student, teacher = student._replace(logits=random(5, 4)), teacher._replace(logits=random(5, 4, seed=1))
    torch.testing.assert_close(DISTLoss()(student, teacher, batch), dist_loss(student.logits, teacher.logits, 2, 2, 4))


def test_gradients():
    student, teacher = random(4, 3).requires_grad_(), random(4, 3, seed=1)
    assert torch.autograd.gradcheck(lambda s: dist_loss(s, teacher, 1, 2, 4), student)


def test_equal_answers_have_finite_gradients():
    student = torch.zeros(3, 4, requires_grad=True)
    value = dist_loss(student, random(3, 4).float(), 2, 2, 4)
    value.backward()
    assert value == 4**2 * (2 + 2) and student.grad.isfinite().all()


@pytest.mark.parametrize('amp', [False, True])
def test_a_step(amp):
    step(dict(type='mmcrrcd.DISTLoss'), amp=amp)


def test_a_single_image_is_refused():
    with pytest.raises(InputError, match='^DISTLoss needs a batch of at least 2 images, got 1$'):
        DISTLoss()(*outputs(embedding_s=random(1, 2), embedding_t=random(1, 3)))
    DISTLoss().check_batch(2)


def test_a_temperature_that_cannot_be_is_refused():
    with pytest.raises(InputError, match='temperature is a positive number'):
        DISTLoss(temperature=-1)
