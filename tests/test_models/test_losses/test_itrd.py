"""ITRD against a plain version and the published values."""
import numpy as np
import pytest
import torch
from distil_step import outputs, random, step
from mmcrrcd.errors import InputError
from mmcrrcd.models import ITRDLoss, correlation_loss, mutual_loss
from utils import GOLDEN


def slow_correlation(student, teacher, alpha):
    total = 0
    for s, t in zip(student.numpy().T, teacher.numpy().T):
        s, t = ((x - x.mean()) / x.std(ddof=1) for x in (s, t))
        total += abs((s * t).mean() - 1)**(2 * alpha)
    return np.log2(total)


def slow_mutual(student, teacher):
    def gram(x):
        rows = [row / np.linalg.norm(row) for row in x.numpy()]
        return np.array([[row @ other for other in rows] for row in rows])

    ours, joint = gram(student), gram(student) * gram(teacher)
    return ((ours / np.trace(ours))**2 - (joint / np.trace(joint))**2).sum()


@pytest.mark.parametrize('alpha', [1.01, 1.5])
def test_the_correlation_equals_a_plain_version(alpha):
    student, teacher = random(6, 4), random(6, 4, seed=1)
    value = correlation_loss(student, teacher, alpha)
    assert value.item() == pytest.approx(slow_correlation(student, teacher, alpha), abs=1e-12)


@pytest.mark.parametrize('images', [5, 1])
def test_the_mutual_part_equals_a_plain_version(images):
    student, teacher = random(images, 4), random(images, 3, seed=1)
    assert mutual_loss(student, teacher).item() == pytest.approx(slow_mutual(student, teacher), abs=1e-12)


def test_equals_the_published_values():
    """Of the module, too: the linear map is in both parts, as the widths differ."""
    values = {key: torch.from_numpy(np.asarray(value)) for key, value in np.load(GOLDEN / 'modern.npz').items()}
    student, teacher, batch = outputs(embedding_s=values['emb_s'], embedding_t=values['emb_t'])

    def module(**settings):
        loss = ITRDLoss(**settings).double()
        loss.build(student, teacher)
        loss.double().map.load_state_dict(dict(weight=values['itrd_weight'], bias=values['itrd_bias']))
        return loss(student, teacher, batch).detach()

    for alpha in (1.01, 1.5):
        value = module(correlation=1, mutual=0, alpha=alpha)
        torch.testing.assert_close(value, values[f'out_itrd_correlation_a{alpha}'], rtol=0, atol=1e-9)
    torch.testing.assert_close(module(correlation=0, mutual=1), values['out_itrd_mutual'], rtol=0, atol=1e-9)
    whole = 2 * values['out_itrd_correlation_a1.01'] + values['out_itrd_mutual']
    torch.testing.assert_close(module(), whole, rtol=0, atol=1e-9)


def test_embeddings_of_one_width_are_related_as_they_are():
    student, teacher, batch = outputs(embedding_s=random(5, 4), embedding_t=random(5, 4, seed=1))
    loss = ITRDLoss(correlation=0)
    loss.build(student, teacher)
    torch.testing.assert_close(loss.double()(student, teacher, batch), mutual_loss(student.embedding, teacher.embedding))


def test_gradients():
    student, teacher = random(4, 3).requires_grad_(), random(4, 3, seed=1)
    assert torch.autograd.gradcheck(lambda s: correlation_loss(s, teacher, 1.01) + mutual_loss(s, teacher), student)


@pytest.mark.parametrize('dead', ['student', 'teacher'])
def test_numbers_that_are_always_zero_have_finite_gradients(dead):
    """As those of a unit before the classifier that never fires."""
    x = dict(student=random(5, 3).float(), teacher=random(5, 3, seed=1).float())
    x[dead][:, 1] = 0
    student = x['student'].requires_grad_()
    value = correlation_loss(student, x['teacher'], 1.01) + mutual_loss(student, x['teacher'])
    value.backward()
    assert value.isfinite() and student.grad.isfinite().all()


def test_equal_embeddings_have_a_finite_loss():
    x = random(5, 3).requires_grad_()
    value = correlation_loss(x, x.detach(), 1.01)
    value.backward()
    assert value.isfinite() and x.grad.isfinite().all()


@pytest.mark.parametrize('resolution, amp', [(8, False), (8, True), (None, False)])
def test_a_step(resolution, amp):
    model, _ = step(dict(type='mmcrrcd.ITRDLoss'), resolution, amp)
    assert model.losses['method'].map.weight.shape == (32, 16) and 'losses.method.map.bias' in model.state_dict()


def test_a_single_image_is_refused():
    with pytest.raises(InputError, match='^ITRDLoss needs a batch of at least 2 images, got 1$'):
        ITRDLoss()(*outputs(embedding_s=random(1, 2), embedding_t=random(1, 3)))
    ITRDLoss().check_batch(2)


def test_an_order_that_cannot_be_is_refused():
    with pytest.raises(InputError, match='alpha is a positive number'):
        ITRDLoss(alpha=0)
