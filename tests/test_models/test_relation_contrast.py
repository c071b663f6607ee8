"""The relational contrastive loss against loops, and against values computed by independent code."""
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmcrrcd.models.losses import FeatureRelation, RelationContrastLoss, RelationCritic
from mmcrrcd.models.losses import relation_contrast as module
from mmcrrcd.structures import Batch, NetworkOutput
from utils import GOLDEN


def slow_scores(loss, e_t, e_s, queue):
    """Positive [a][i] and negative [a][i][k] scores with a Python loop over everything."""
    def relation(F_, x, y):
        return F_.phi(torch.relu(F_.phi_i(x) - F_.phi_j(y)))

    critic, b, n = loss.critic, len(e_t), len(queue)
    positive, negative = torch.zeros(b, b).double(), torch.zeros(b, b, n).double()
    for a in range(b):
        teacher = torch.stack([critic.h1(relation(loss.teacher_relation, e_t[a], y)) for y in [*e_t, *queue]])
        cross = torch.stack([critic.h2(relation(loss.cross_relation, e_t[a], y)) for y in e_s])
        if critic.center == 'anchor':
            teacher, cross = teacher - teacher.mean(0), cross - cross.mean(0)
        teacher, cross = F.normalize(teacher, dim=-1), F.normalize(cross, dim=-1)
        for i in range(b):
            positive[a, i] = teacher[i] @ cross[i]
            for k in range(n):
                negative[a, i, k] = teacher[b + k] @ cross[i]
    return positive, negative


def slow_loss(loss, e_t, e_s, keys, queue, queue_keys, anchors):
    """The loss of the docstrings, term by term."""
    positive, negative = slow_scores(loss, e_t, e_s, queue)
    b, n = len(e_t), len(queue)
    pairs = [(a, i) for a in range(anchors) for i in range(b) if a != i]
    used = {i: [k for k in range(n) if keys[i] != queue_keys[k]] for i in range(b)}
    e = torch.exp(negative / loss.tau)
    everything = [e[a, i, k] for a, i in pairs for k in used[i]]
    z_over_m = sum(x.item() for x in everything) / len(everything)
    total = 0
    for a, i in pairs:
        e_pos = torch.exp(positive[a, i] / loss.tau)
        if loss.normalizer == 'softmax':
            total = total - torch.log(e_pos / (e_pos + sum(e[a, i, k] for k in used[i])))
            continue
        z, m = (z_over_m, 1) if loss.normalizer == 'batch' else (1, loss.num_samples)
        total = total - torch.log(e_pos / z / (e_pos / z + n / m))
        for k in used[i]:
            p = e[a, i, k] / z
            total = total - torch.log(1 - p / (p + n / m))
    return total / len(pairs)


def filled(loss, e_t, e_s, queue, queue_keys):
    """``loss`` in float64 with a full queue."""
    logits = torch.zeros(len(e_t), 3)
    loss.build(NetworkOutput((), e_s, logits), NetworkOutput((), e_t, logits))
    loss.double()
    loss.queue.push(queue, queue_keys)
    return loss


def call(loss, e_t, e_s, labels, index=None):
    logits = torch.zeros(len(e_t), 3)
    index = torch.arange(len(e_t)) if index is None else index
    return loss(NetworkOutput((), e_s, logits), NetworkOutput((), e_t, logits), Batch(labels, index))


@pytest.mark.parametrize('sampling', ['supervised', 'unsupervised'])
@pytest.mark.parametrize('normalizer', ['softmax', 'batch', 'none'])
def test_equals_the_reference_values(normalizer, sampling):
    data = {k: torch.from_numpy(np.asarray(v)) for k, v in np.load(GOLDEN / 'relation_contrast.npz').items()}
    loss = RelationContrastLoss(dim=8, num_negatives=20, tau=float(data['tau']), num_anchors=None, sampling=sampling,
                                normalizer=normalizer, center=None, num_samples=int(data['m']))
    keys = data['queue_labels'] if sampling == 'supervised' else torch.arange(20) + 100
    filled(loss, data['e_t'], data['e_s'], data['queue'], keys)
    for prefix, part in (('Ft', loss.teacher_relation), ('Fts', loss.cross_relation)):
        part.load_state_dict({k[len(prefix) + 1:]: v for k, v in data.items() if k.startswith(prefix + '.')})
    loss.critic.load_state_dict({k: v for k, v in data.items() if k.startswith(('h1', 'h2'))})

    others = torch.cat([data['e_t'], data['queue']])
    positive, negative = loss.scores(*loss.project(data['e_t'], data['e_s'], others))
    off = ~torch.eye(6, dtype=torch.bool)
    torch.testing.assert_close(positive[off], data['out_score_positive'][off], rtol=0, atol=1e-9)
    torch.testing.assert_close(negative[off], data['out_score_negative'][off], rtol=0, atol=1e-9)
    value = call(loss, data['e_t'], data['e_s'], data['labels'])
    torch.testing.assert_close(value, data[f'out_loss_{normalizer}_{sampling}'], rtol=0, atol=1e-9)


@pytest.mark.parametrize('anchors', [1, 3, None])
@pytest.mark.parametrize('center', [None, 'anchor'])
@pytest.mark.parametrize('sampling', ['supervised', 'unsupervised'])
@pytest.mark.parametrize('normalizer', ['softmax', 'batch', 'none'])
def test_equals_loops_with_gradients(normalizer, sampling, center, anchors):
    torch.manual_seed(0)
    e_t, e_s, queue = (torch.randn(n, d).double() for n, d in ((5, 6), (5, 4), (7, 6)))
    e_s.requires_grad_()
    labels, queue_labels = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([0, 1, 2, 0, 1, 2, 0])
    index, queue_index = torch.arange(5), torch.tensor([9, 1, 8, 7, 4, 6, 10])
    loss = RelationContrastLoss(dim=3, num_negatives=7, tau=0.3, num_anchors=anchors, sampling=sampling, center=center,
                                normalizer=normalizer, num_samples=50)
    keys, queue_keys = (labels, queue_labels) if sampling == 'supervised' else (index, queue_index)
    filled(loss, e_t, e_s, queue, queue_keys)
    parameters = [e_s, *loss.parameters()]
    expected = slow_loss(loss, e_t, e_s, keys, queue, queue_keys, anchors or 5)
    value = call(loss, e_t, e_s, labels, index)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(torch.autograd.grad(value, parameters), torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize('center', [None, 'anchor'])
@pytest.mark.parametrize('normalizer', ['softmax', 'batch', 'none'])
@pytest.mark.parametrize('sampling', ['supervised', 'unsupervised'])
def test_without_a_queue_the_batch_serves(sampling, normalizer, center):
    torch.manual_seed(0)
    e_t, e_s = torch.randn(5, 6).double(), torch.randn(5, 4).double().requires_grad_()
    labels, index = torch.tensor([0, 1, 2, 0, 1]), torch.arange(5)
    loss = RelationContrastLoss(dim=3, num_negatives=None, tau=0.3, num_anchors=3, sampling=sampling, center=center,
                                normalizer=normalizer, num_samples=50)
    logits = torch.zeros(5, 3)
    loss.build(NetworkOutput((), e_s, logits), NetworkOutput((), e_t, logits))
    loss.double().check_batch(10_000)
    keys = labels if sampling == 'supervised' else index
    expected = slow_loss(loss, e_t, e_s, keys, e_t, keys, 3)
    value = call(loss, e_t, e_s, labels, index)
    parameters = [e_s, *loss.parameters()]
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(torch.autograd.grad(value, parameters), torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


def test_chunks_change_nothing(monkeypatch):
    torch.manual_seed(0)
    e_t, e_s = torch.randn(9, 6).double(), torch.randn(9, 4).double().requires_grad_()
    labels, queue, keys = torch.arange(9) % 3, torch.randn(12, 6).double(), torch.arange(12) % 3
    loss = RelationContrastLoss(dim=3, num_negatives=12, num_anchors=None)
    filled(loss, e_t, e_s, queue, keys)
    results = []
    for kept, chunk in ((100, 100), (2, 2), (2, 4)):
        monkeypatch.setattr(module, 'KEPT', kept)
        monkeypatch.setattr(module, 'CHUNK', chunk)
        loss.queue.pushed.zero_()
        loss.queue.push(queue, keys)
        value = call(loss, e_t, e_s, labels)
        results.append((value, *torch.autograd.grad(value, [e_s, *loss.parameters()])))
    for whole, *chunked in zip(*results, strict=True):
        for each in chunked:
            torch.testing.assert_close(whole, each, rtol=1e-12, atol=1e-12)


def test_the_loss_counts_once_the_queue_is_full():
    torch.manual_seed(0)
    loss = RelationContrastLoss(dim=3, num_negatives=8)
    logits = torch.zeros(4, 3)
    e_t, e_s = torch.randn(4, 6), torch.randn(4, 5)
    loss.build(NetworkOutput((), e_s, logits), NetworkOutput((), e_t, logits))
    values = [call(loss, e_t, e_s, torch.arange(4)).item() for _ in range(3)]
    assert values[:2] == [0, 0] and values[2] > 0
    assert torch.equal(loss.queue.embedding, torch.cat([e_t, e_t]))


def test_queue_is_first_in_first_out_and_in_the_state_dict():
    queue = module.EmbeddingQueue(5, 2)
    for start in (0, 3, 6):
        rows = torch.arange(start, start + 3)
        queue.push(rows[:, None].float().expand(-1, 2), rows)
    assert sorted(queue.key.tolist()) == [4, 5, 6, 7, 8] and bool(queue.full)
    assert torch.equal(queue.embedding[:, 0].long(), queue.key)
    assert set(queue.state_dict()) == {'embedding', 'key', 'pushed'}


def test_z_is_set_by_the_first_counted_batch_and_kept():
    torch.manual_seed(0)
    loss = RelationContrastLoss(dim=3, num_negatives=4, normalizer='batch')
    outputs = [(torch.randn(4, 6), torch.randn(4, 5)) for _ in range(3)]
    logits = torch.zeros(4, 3)
    loss.build(NetworkOutput((), outputs[0][1], logits), NetworkOutput((), outputs[0][0], logits))
    seen = []
    for e_t, e_s in outputs:
        value = call(loss, e_t, e_s, torch.arange(4))
        seen.append(loss.log_mean.item())
        assert math.isfinite(value.item())
    assert seen[0] == -math.inf and math.isfinite(seen[1]) and seen[1] == seen[2]


def test_the_parts_alone():
    torch.manual_seed(0)
    relation, critic = FeatureRelation(6, 5, 4), RelationCritic(4)
    x, y = torch.randn(3, 6), torch.randn(2, 5)
    v = relation(x, y)
    assert v.shape == (3, 2, 4)
    by_hand = relation.phi(torch.relu(relation.phi_i(x[1]) - relation.phi_j(y[0])))
    torch.testing.assert_close(v[1, 0], by_hand)
    scores = critic(v, v)
    h1, h2 = critic.h1(by_hand), critic.h2(by_hand)
    torch.testing.assert_close(scores[1, 0], h1 @ h2 / h1.norm() / h2.norm())


def test_the_parts_alone_equal_loops_and_have_their_gradients():
    torch.manual_seed(0)
    relation, critic = FeatureRelation(3, 2, 4).double(), RelationCritic(4).double()
    x, y, other = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 3), (3, 2), (2, 3, 4)))

    def linear(layer, vector):
        return [sum(w * v for w, v in zip(row, vector)) + b for row, b in zip(layer.weight.tolist(), layer.bias.tolist())]

    def unit(vector):
        norm = math.sqrt(sum(v**2 for v in vector))
        return [v / norm for v in vector]

    v = relation(x, y)
    for a in range(2):
        for i in range(3):
            ours, theirs = linear(relation.phi_i, x[a].tolist()), linear(relation.phi_j, y[i].tolist())
            by_hand = linear(relation.phi, [max(p - q, 0) for p, q in zip(ours, theirs)])
            assert v[a, i].tolist() == pytest.approx(by_hand, abs=1e-12)
            ours, theirs = unit(linear(critic.h1, by_hand)), unit(linear(critic.h2, other[a, i].tolist()))
            assert critic(v, other)[a, i].item() == pytest.approx(sum(p * q for p, q in zip(ours, theirs)), abs=1e-12)
    assert torch.autograd.gradcheck(relation, (x, y))
    assert torch.autograd.gradcheck(critic, (v.detach().requires_grad_(), other))


@pytest.mark.parametrize('settings, word', [
    (dict(sampling='both'), 'sampling'), (dict(normalizer='sum'), 'normalizer'), (dict(normalizer='none'), 'num_samples'),
    (dict(tau=0), 'tau'), (dict(center='batch'), 'center'), (dict(num_anchors=0), 'num_anchors'),
    (dict(num_negatives='many'), 'num_negatives'), (dict(num_negatives=64.5), 'num_negatives'), (dict(dim=True), 'dim'),
    (dict(tau=float('nan')), 'tau')])
def test_wrong_settings_are_named(settings, word):
    with pytest.raises(ValueError, match=word):
        RelationContrastLoss(**settings)


def test_a_queue_shorter_than_the_batch_is_refused():
    loss = RelationContrastLoss(dim=3, num_negatives=4)
    logits = torch.zeros(6, 3)
    e_t, e_s = torch.randn(6, 6), torch.randn(6, 5)
    loss.build(NetworkOutput((), e_s, logits), NetworkOutput((), e_t, logits))
    with pytest.raises(ValueError, match='num_negatives=4'):
        call(loss, e_t, e_s, torch.arange(6))
