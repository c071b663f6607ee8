"""CRCD against loops and the published values, and what stands for its gradient."""
import numpy as np
import pytest
import torch
from distil_step import random, step
from torch import nn
from torch.nn import functional as F

from mmcrrcd.models import CRCDLoss
from mmcrrcd.models.losses.crcd import RelationMemoryContrast, logit_gradient, relation_scores
from mmcrrcd.models.losses.crd import nce_loss
from test_crd import saved_bytes, some_index, unit
from utils import GOLDEN


def slow_scores(features, bank, index, anchors):
    """(b, A, 1 + K) by making every relation."""
    def relation(x, anchor):
        difference = x - anchor + 1e-6
        return difference / difference.norm()

    return torch.stack([torch.stack([torch.stack([
        relation(x, bank[a]) @ relation(bank[row], bank[a]) for row in rows]) for a in anchors])
        for x, rows in zip(features, index)])


def inputs(b=3, k=5, n=9, d=4):
    """Unit vectors, a bank, rows of which some are anchors, and the anchors, which are the samples' own rows."""
    index = some_index(b, k, n)
    index[:, 0] = torch.tensor([4, 7, 2])[:b]
    index[0, 2], index[1, 3] = 7, 2
    return unit(b, d, seed=0).requires_grad_(), unit(n, d, seed=1), index, index[:, 0]


def test_scores_equal_loops_with_gradients():
    x, bank, index, anchors = inputs()
    ours, theirs = (f(x, bank, index, anchors) for f in (relation_scores, slow_scores))
    assert (index[:, None] == anchors[:, None]).sum() >= 5
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11)
    weights = random(*ours.shape, seed=3)
    for a, b in zip(torch.autograd.grad((weights * ours).sum(), x), torch.autograd.grad((weights * theirs).sum(), x)):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_scores_are_right_in_float32():
    """Where rows are anchors, and where they are close to one, the expansion is what would lose all digits."""
    torch.manual_seed(0)
    bank = unit(500, 128, seed=0)
    bank[1] = F.normalize(bank[0] + 0.01 * unit(128, seed=1), dim=0)
    x, index = F.normalize(bank[:32] + 0.3 * unit(32, 128, seed=2)), torch.randint(500, (32, 101))
    index[:, 0], index[:, 1:3] = torch.arange(32), torch.tensor([0, 1])
    exact = relation_scores(x, bank, index, index[:, 0])
    single = relation_scores(x.float(), bank.float(), index, index[:, 0])
    error = (single - exact).abs()
    assert error.mean() < 1e-6 and error.max() < 2e-3


def test_gradients():
    x, bank, index, anchors = inputs()
    torch.autograd.gradcheck(lambda x: nce_loss(relation_scores(x, bank, index, anchors), 9.0, 0.3, 9), x)


def test_equals_the_published_values():
    """Tolerance: 1e-5 of the loss, as the published code adds 1e-7 to a denominator, once for each of the 33 scores."""
    data = {key: torch.from_numpy(value) for key, value in np.load(GOLDEN / 'reference.npz').items()}
    contrast = RelationMemoryContrast(num_samples=200, dim=24, num_negatives=32, temperature=0.07, momentum=0.5).double()
    contrast.bank.student.copy_(data['crd_mem_s'])
    contrast.bank.teacher.copy_(data['crd_mem_t'])
    name = 'out_crcd_K32_T0.07_m0.5'
    value = contrast.contrast(data['crd_v_s'], data['crd_v_t'], data['crd_neg_index'])
    torch.testing.assert_close(value, data[name], rtol=1e-5, atol=0)
    torch.testing.assert_close(contrast.z, data[name + '_Z'], rtol=1e-6, atol=0)
    for key, bank in (('s', contrast.bank.student), ('t', contrast.bank.teacher)):
        torch.testing.assert_close(bank, data[f'{name}_mem_{key}'], rtol=0, atol=1e-9)


def test_memory_of_a_direction():
    """As published, batch 64 and 500 negatives hold 1,061 MB."""
    x, bank, index = torch.randn(64, 128, requires_grad=True), torch.randn(5000, 128), torch.randint(5000, (64, 501))
    held = saved_bytes(lambda: nce_loss(relation_scores(x, bank, index, index[:, 0]), 5e4, 0.05, 50000))
    assert 64 * 64 * 500 * 4 < held < 41e6


def test_the_gradient_at_the_logits_leads_to_the_one_at_the_embedding():
    torch.manual_seed(0)
    classifier, embedding = nn.Linear(6, 4).double(), random(5, 6).requires_grad_()
    labels = torch.tensor([0, 3, 1, 1, 2])
    logits = classifier(embedding)
    at_logits, at_embedding = torch.autograd.grad(F.cross_entropy(logits, labels, reduction='sum'), [logits, embedding])
    torch.testing.assert_close(logit_gradient(logits, labels), at_logits)
    torch.testing.assert_close(logit_gradient(logits, labels) @ classifier.weight, at_embedding)


@pytest.mark.parametrize('gradient', [True, False])
def test_a_step_in_a_distiller(gradient):
    model, value = step(dict(type='mmcrrcd.CRCDLoss', num_samples=24, num_negatives=12, dim=16, gradient=gradient))
    loss = model.losses['method']
    assert value > 0 and isinstance(loss, CRCDLoss) and loss.feature.z.all()
    assert loss.feature.project_t.in_features == 32 and loss.feature.project_s.in_features == 16
    if gradient:
        assert loss.gradient.project_s.in_features == 4 and loss.gradient.z.all()
        assert torch.equal(loss.gradient.bank.label, loss.feature.bank.label)
