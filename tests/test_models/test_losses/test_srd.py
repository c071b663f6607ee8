"""SRD against a plain version and the published value."""
import numpy as np
import pytest
import torch
from distil_step import outputs, random, step
from mmcrrcd.errors import InputError
from mmcrrcd.models import SRDLoss, log_sum_loss
from utils import GOLDEN


def built(student, teacher, weight, **settings):
    loss = SRDLoss(**settings)
    loss.build(student, teacher)
    loss.double().map.load_state_dict(dict(weight=weight))
    return loss


def slow(student, teacher, weight, exponent):
    def norm(x):
        return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-4)

    difference = norm(student.numpy() @ weight.numpy().T) - norm(teacher.numpy())
    return 2 * np.log(sum(abs(d)**exponent for d in difference.flatten().tolist()))


@pytest.mark.parametrize('exponent', [4.0, 2.5])
def test_equals_a_plain_version(exponent):
    student, teacher, batch = outputs(embedding_s=random(6, 4), embedding_t=random(6, 5, seed=1))
    weight = random(5, 4, seed=2)
    value = built(student, teacher, weight, exponent=exponent)(student, teacher, batch)
    assert value.item() == pytest.approx(slow(student.embedding, teacher.embedding, weight, exponent), abs=1e-12)


def test_equals_the_published_value():
    """Which is without the factor 2; the bias of the map there has no effect before a batch norm."""
    values = {key: torch.from_numpy(np.asarray(value)) for key, value in np.load(GOLDEN / 'modern.npz').items()}
    student, teacher, batch = outputs(embedding_s=values['emb_s'], embedding_t=values['emb_t'])
    value = built(student, teacher, values['itrd_weight'])(student, teacher, batch).detach()
    torch.testing.assert_close(value, 2 * values['out_srd_feature_e4'], rtol=0, atol=1e-9)


def test_the_statistics_are_the_batchs_in_eval_mode_too():
    student, teacher, batch = outputs(embedding_s=random(6, 4), embedding_t=random(6, 5, seed=1))
    loss = built(student, teacher, random(5, 4, seed=2))
    torch.testing.assert_close(loss.eval()(student, teacher, batch), loss.train()(student, teacher, batch))
    assert set(loss.state_dict()) == {'map.weight'}


def test_gradients():
    student, teacher = random(4, 3).requires_grad_(), random(4, 3, seed=1)
    assert torch.autograd.gradcheck(lambda s: log_sum_loss(s, teacher, 4), student)


def test_equal_embeddings_have_a_finite_loss():
    x = random(4, 3).requires_grad_()
    value = log_sum_loss(x, x.detach(), 4)
    value.backward()
    assert value.isfinite() and not x.grad.any()


@pytest.mark.parametrize('resolution, amp', [(8, False), (8, True), (None, False)])
def test_a_step(resolution, amp):
    model, _ = step(dict(type='mmcrrcd.SRDLoss'), resolution, amp)
    assert model.losses['method'].map.weight.shape == (32, 16)


def test_a_single_image_is_refused():
    with pytest.raises(InputError, match='^SRDLoss needs a batch of at least 2 images, got 1$'):
        SRDLoss()(*outputs(embedding_s=random(1, 2), embedding_t=random(1, 3)))
    SRDLoss().check_batch(2)


def test_an_exponent_that_cannot_be_is_refused():
    with pytest.raises(InputError, match='exponent is a positive number'):
        SRDLoss(exponent=0)
