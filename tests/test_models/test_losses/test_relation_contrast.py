"""The relational contrastive loss against loops, and against values computed by independent code."""
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmcrrcd.errors import InputError
from mmcrrcd.models.losses import RelationContrastLoss, contrast
from mmcrrcd.models.losses.fused import L2, SoftmaxContrast
from mmcrrcd.models.losses.relation_contrast import CLOSED, Direction, LearnedRelation
from mmcrrcd.models.memory import EmbeddingQueue
from mmcrrcd.structures import Batch, NetworkOutput
from utils import GOLDEN


def unit(vector):
    return vector / vector.square().sum().sqrt()


def slow_loss(loss, e_t, e_s, keys, queue, queue_keys):
    """The loss of the docstrings in loops; ``queue`` holds what is in it so far."""
    size, learned = len(e_t), loss.relation == 'learned'
    number = loss.num_anchors or size
    anchors = [a * size // number for a in range(number)]
    if not learned:
        e_s = e_s @ loss.student_map.weight.T + loss.student_map.bias
        e_t, e_s = ((x - x.mean(0)) / (((x - x.mean(0))**2).mean(0) + 1e-5).sqrt() for x in (e_t, e_s))
    images, all_keys = [*e_t, *queue], [*keys.tolist(), *queue_keys.tolist()]
    full = loss.num_negatives and len(queue) == loss.num_negatives
    serving = range(size, len(images)) if learned and full else range(len(images))

    def relations(F_, a, others):
        """h(F(a, k)) of each k, centered and of length 1; from the anchor to k in the direction form."""
        if not learned:
            return [unit(y - e_t[a]) if (y - e_t[a]).any() else y * 0 for y in others]
        found = [F_.h(F_.phi(torch.relu(F_.phi_i(e_t[a]) - F_.phi_j(y)))) for y in others]
        mean = sum(found) / len(found) if F_.center else 0
        return [unit(v - mean) for v in found]

    scores, pairs = {}, [(a, i) for a in anchors for i in range(size) if a != i]
    for a in anchors:
        v_t, v_ts = relations(loss.relation_t, a, images), relations(loss.relation_ts, a, e_s)
        for i in range(size):
            negatives = [k for k in serving if all_keys[k] != keys[i] and k != a]
            scores[a, i] = v_ts[i] @ v_t[i] / loss.tau, [v_ts[i] @ v_t[k] / loss.tau for k in negatives]
    z = [s.exp().item() for pair in pairs for s in scores[pair][1]]
    total = 0
    for positive, negatives in (scores[pair] for pair in pairs):
        if loss.normalizer == 'softmax':
            total = total - torch.log(positive.exp() / (positive.exp() + sum(s.exp() for s in negatives)))
            continue
        per_z, m = (len(z) / sum(z), 1) if loss.normalizer == 'batch' else (1, loss.num_samples)
        h = [s.exp() * per_z / (s.exp() * per_z + len(serving) / m) for s in (positive, *negatives)]
        total = total - torch.log(h[0]) - sum(torch.log(1 - x) for x in h[1:])
    return total / len(pairs)


def built(loss, width_t, width_s):
    """``loss`` in float64 for embeddings of these widths."""
    loss.build(*(NetworkOutput((), torch.zeros(2, width), None) for width in (width_s, width_t)))
    return loss.double()


def call(loss, e_t, e_s, labels, index=None):
    index = torch.arange(len(e_t)) if index is None else index
    return loss(NetworkOutput((), e_s, None), NetworkOutput((), e_t, None), Batch(labels, index))


def same_with_gradients(value, expected, inputs):
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)
    for ours, theirs in zip(torch.autograd.grad(value, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


def golden(name):
    return {k: torch.from_numpy(np.asarray(v)) for k, v in np.load(GOLDEN / name).items()}


@pytest.mark.parametrize('tau', [0.1, 0.2])
@pytest.mark.parametrize('sampling', ['supervised', 'unsupervised'])
def test_the_direction_form_has_the_reference_values(sampling, tau):
    """There the first images are the anchors, so they are put where anchors lie here."""
    data = golden('direction.npz')
    size, number = len(data['e_t']), int(data['num_anchors'])
    at = [a * size // number for a in range(number)]
    order = torch.tensor(at + [i for i in range(size) if i not in at]).argsort()
    loss = built(RelationContrastLoss(num_negatives=20, tau=tau, num_anchors=number, sampling=sampling), 10, 14)
    loss.student_map.load_state_dict({key: data[key] for key in ('weight', 'bias')})
    loss.queue.push(data['queue'], data['queue_labels'] if sampling == 'supervised' else torch.arange(20) + 100)
    e_s = data['e_s'].requires_grad_()
    value = call(loss, data['e_t'][order], e_s[order], data['labels'][order])
    torch.testing.assert_close(value, data[f'out_loss_{sampling}_{tau}'], rtol=0, atol=1e-9)
    if tau == 0.1:
        gradient, = torch.autograd.grad(value, e_s)
        torch.testing.assert_close(gradient, data[f'out_grad_student_{sampling}_0.1'], rtol=0, atol=1e-7)


@pytest.mark.parametrize('sampling', ['supervised', 'unsupervised'])
@pytest.mark.parametrize('normalizer', ['softmax', 'batch', 'none'])
def test_the_learned_form_has_the_reference_values(normalizer, sampling):
    data = golden('relation_contrast.npz')
    loss = built(RelationContrastLoss(relation='learned', dim=8, num_negatives=20, tau=float(data['tau']), num_anchors=None,
                                      sampling=sampling, normalizer=normalizer, center=None, num_samples=int(data['m'])), 10, 7)
    for prefix, h, part in (('Ft', 'h1', loss.relation_t), ('Fts', 'h2', loss.relation_ts)):
        weights = {k.removeprefix(prefix + '.'): v for k, v in data.items() if k.startswith(prefix + '.')}
        part.load_state_dict(weights | {k.replace(h, 'h'): v for k, v in data.items() if k.startswith(h)})
    loss.queue.push(data['queue'], data['queue_labels'] if sampling == 'supervised' else torch.arange(20) + 100)

    v_t = loss.relation_t(data['e_t'], torch.cat([data['e_t'], data['queue']]))
    scores, off = loss.relation_ts(data['e_t'], data['e_s']) @ v_t.mT, ~torch.eye(6, dtype=torch.bool)
    positive = scores[..., :6].diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(positive[off], data['out_score_positive'][off], rtol=0, atol=1e-9)
    torch.testing.assert_close(scores[..., 6:][off], data['out_score_negative'][off], rtol=0, atol=1e-9)
    value = call(loss, data['e_t'], data['e_s'], data['labels'])
    torch.testing.assert_close(value, data[f'out_loss_{normalizer}_{sampling}'], rtol=0, atol=1e-9)


FORMS = [dict(relation='direction'), dict(relation='learned', dim=6), dict(relation='learned', dim=6, center=None)]


# Images in a queue of 7 (no queue, one that fills, a full one), and anchors (some, all, one).
PLACES = [(None, 3), (4, None), (7, 1)]


@pytest.mark.parametrize('stored, anchors', PLACES)
@pytest.mark.parametrize('form', FORMS, ids=str)
@pytest.mark.parametrize('normalizer, sampling', [
    ('softmax', 'supervised'), ('softmax', 'unsupervised'), ('batch', 'supervised'), ('none', 'unsupervised')])
def test_equals_loops_with_gradients(normalizer, sampling, form, anchors, stored):
    torch.manual_seed(0)
    e_t, e_s, queue = (torch.randn(n, d).double() for n, d in ((5, 6), (5, 4), (stored or 0, 6)))
    e_s.requires_grad_()
    labels, queue_keys = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([0, 1, 2, 7, 4, 6, 2])[:stored or 0]
    loss = built(RelationContrastLoss(**form, num_negatives=stored and 7, tau=0.3, num_anchors=anchors, sampling=sampling,
                                      normalizer=normalizer, num_samples=50), 6, 4)
    if stored:
        loss.queue.push(queue, queue_keys)
    keys = labels if sampling == 'supervised' else torch.arange(5)
    expected = slow_loss(loss, e_t, e_s, keys, queue, queue_keys)
    same_with_gradients(call(loss, e_t, e_s, labels), expected, [e_s, *loss.parameters()])


def test_no_queue_is_zero_negatives_too():
    torch.manual_seed(0)
    e_t, e_s = torch.randn(5, 6).double(), torch.randn(5, 4).double()
    torch.manual_seed(1)
    none = built(RelationContrastLoss(num_negatives=None), 6, 4)
    torch.manual_seed(1)
    zero = built(RelationContrastLoss(num_negatives=0), 6, 4)
    assert call(none, e_t, e_s, torch.arange(5)) == call(zero, e_t, e_s, torch.arange(5))
    none.check_batch(10_000)


@pytest.mark.parametrize('width', [4, 6, 9])
def test_the_student_may_be_narrower_or_wider_than_the_teacher(width):
    loss = built(RelationContrastLoss(num_negatives=8), 6, width)
    call(loss, torch.randn(5, 6).double(), torch.randn(5, width).double(), torch.arange(5)).backward()
    assert loss.student_map.weight.shape == (6, width) and loss.student_map.weight.grad.any()


def test_the_direction_is_eq_1_with_fixed_weights():
    """phi_i = phi_j = [I; -I] and phi = [-I, I] in F of Eq. 1, and no linear map in h."""
    eye, zero = torch.eye(3).double(), torch.zeros(6).double()
    relation = LearnedRelation(3, 3, 6, None).double()
    signs = torch.cat([eye, -eye])
    relation.phi_i.weight.data, relation.phi_j.weight.data = signs, signs
    relation.phi.weight.data = torch.cat([torch.cat([-eye, eye], 1), torch.zeros(3, 6).double()])
    relation.h.weight.data = torch.eye(6).double()
    for layer in (relation.phi_i, relation.phi_j, relation.phi, relation.h):
        layer.bias.data = zero
    x, y = torch.randn(2, 3).double(), torch.randn(4, 3).double()
    torch.testing.assert_close(Direction()(x, y), relation(x, y)[..., :3])


@pytest.mark.parametrize('tau', [1.0, 0.005])                            # exponents of up to 200
def test_the_fused_softmax_is_the_plain_one(tau):
    torch.manual_seed(0)
    v_t, v_ts = (F.normalize(torch.randn(3, n, 4).double(), dim=-1).requires_grad_() for n in (9, 5))
    own = torch.tensor([4, 5, 6, 7, 8])
    closed = CLOSED * (torch.rand(3, 5, 9) > 0.6).double()
    closed[0, 1] = CLOSED                                                # an image without positive and negatives
    closed[:, 2:, :] = closed[:, 2:, :].scatter(-1, own[2:].expand(3, 3)[..., None], 0)
    weight = torch.rand(3, 5).double() * (closed.gather(-1, own.expand(3, 5)[..., None]).squeeze(-1) == 0)
    expected = (contrast(torch.baddbmm(closed, v_ts / tau, v_t.mT), own, None) * weight).sum()
    value = (SoftmaxContrast.apply(v_t, v_ts / tau, closed.clone(), own) * weight).sum()
    same_with_gradients(value, expected, [v_t, v_ts])


def test_the_fused_l2_is_the_plain_one():
    x, weight = torch.randn(3, 5, 4).double().requires_grad_(), torch.randn(3, 5, 4).double()
    same_with_gradients((L2.apply(x) * weight).sum(), (F.normalize(x, dim=-1) * weight).sum(), [x])
    zero = torch.zeros(2, 4, requires_grad=True)
    assert torch.autograd.grad(L2.apply(zero).sum(), zero)[0].isfinite().all() and not L2.apply(zero).any()


@pytest.mark.parametrize('form', FORMS[:2], ids=str)
def test_negatives_while_the_queue_fills(form):
    """Both forms have the batch beside what is in the queue, the learned one until it is full; no gradient is lost or NaN."""
    torch.manual_seed(0)
    loss = built(RelationContrastLoss(**form, num_negatives=8), 6, 5)
    for negatives in (4, 8, 8 if form['relation'] == 'learned' else 12):
        e_s = torch.randn(4, 5).double().requires_grad_()
        value = call(loss, torch.randn(4, 6).double(), e_s, torch.arange(4))
        gradient, = torch.autograd.grad(value, e_s)
        assert gradient.isfinite().all() and gradient.any() and value > 0
        assert loss.log_vars['negatives'] == negatives


def test_the_queue_holds_standardized_embeddings_as_they_went_in():
    loss = built(RelationContrastLoss(num_negatives=8), 6, 5)
    batches = [3 + 7 * torch.randn(4, 6).double() for _ in range(3)]
    for e_t in batches:
        call(loss, e_t, torch.randn(4, 5).double(), torch.arange(4))
    expected = [(e_t - e_t.mean(0)) / (e_t.var(0, correction=0) + 1e-5).sqrt() for e_t in (batches[2], batches[1])]
    torch.testing.assert_close(loss.queue.embedding, torch.cat(expected))


@pytest.mark.parametrize('normalizer', ['softmax', 'batch'])
@pytest.mark.parametrize('form', FORMS[:2], ids=str)
def test_a_loss_goes_on_from_its_state(form, normalizer):
    """What it computes and keeps from the fourth batch on does not depend on a restart before it."""
    torch.manual_seed(0)
    batches = [(torch.randn(4, 6).double(), torch.randn(4, 5).double()) for _ in range(5)]
    whole, resumed = (built(RelationContrastLoss(**form, normalizer=normalizer, num_negatives=8), 6, 5) for _ in range(2))
    for batch in batches[:3]:
        call(whole, *batch, torch.arange(4))
    resumed.load_state_dict({key: value.clone() for key, value in whole.state_dict().items()})
    for batch in batches[3:]:
        assert torch.equal(call(whole, *batch, torch.arange(4)), call(resumed, *batch, torch.arange(4)))
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key])


def test_queue_is_first_in_first_out_and_in_the_state_dict():
    queue = EmbeddingQueue(5, 2)
    for start in (0, 3, 6):
        rows = torch.arange(start, start + 3)
        queue.push(rows[:, None].float().expand(-1, 2), rows)
        assert queue.filled.sum() == min(start + 3, 5)
    assert sorted(queue.key.tolist()) == [4, 5, 6, 7, 8] and bool(queue.full)
    assert torch.equal(queue.embedding[:, 0].long(), queue.key)
    assert set(queue.state_dict()) == {'embedding', 'key', 'pushed'}


def test_z_is_set_by_the_first_batch_with_negatives_and_kept():
    torch.manual_seed(0)
    loss = built(RelationContrastLoss(relation='learned', dim=3, num_negatives=4, normalizer='batch'), 6, 5)
    seen = []
    for labels in (torch.zeros(4, dtype=torch.long), torch.arange(4), torch.arange(4)):
        value = call(loss, torch.randn(4, 6).double(), torch.randn(4, 5).double(), labels)
        seen.append(loss.log_mean.item())
        assert math.isfinite(value.item())
    assert seen[0] == -math.inf and math.isfinite(seen[1]) and seen[1] == seen[2]


def test_the_log_shows_the_mean_cosines_of_the_first_anchor():
    torch.manual_seed(0)
    loss = built(RelationContrastLoss(num_negatives=4, num_anchors=2, tau=0.3), 6, 5)
    e_t, e_s = torch.randn(4, 6).double(), torch.randn(4, 5).double()
    call(loss, e_t, e_s, torch.tensor([0, 1, 1, 2]))
    t, s = ((x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt() for x in (e_t, loss.student_map(e_s)))
    cosine = [[F.cosine_similarity(s[i] - t[0], t[k] - t[0], dim=0) for k in range(4)] for i in range(4)]
    for name, pairs in dict(positive=((1, 1), (2, 2), (3, 3)), negative=((1, 3), (2, 3), (3, 1), (3, 2))).items():
        mean = sum(cosine[i][k] for i, k in pairs).detach() / len(pairs)
        torch.testing.assert_close(loss.log_vars[f'score_{name}'], mean)


@pytest.mark.parametrize('form', FORMS[:2], ids=str)
def test_half_precision_embeddings_are_compared_in_float32(form):
    """As from a teacher cache, or a network under autocast."""
    loss = built(RelationContrastLoss(**form, num_negatives=8), 6, 5).float()
    e_t, e_s = torch.randn(4, 6).half(), torch.randn(4, 5).bfloat16()
    queue = torch.randn(8, 6)
    loss.queue.push(queue, torch.arange(8))
    half = call(loss, e_t, e_s, torch.arange(4))
    loss.queue.pushed.zero_()
    loss.queue.push(queue, torch.arange(8))
    assert half.dtype == torch.float32 and torch.equal(half, call(loss, e_t.float(), e_s.float(), torch.arange(4)))


@pytest.mark.parametrize('settings, word', [
    (dict(relation='both'), 'relation'), (dict(sampling='both'), 'sampling'), (dict(normalizer='sum'), 'normalizer'),
    (dict(normalizer='none'), 'num_samples'), (dict(tau=0), 'tau'), (dict(relation='learned', center='batch'), 'center'),
    (dict(num_anchors=0), 'num_anchors'), (dict(num_negatives='many'), 'num_negatives'),
    (dict(num_negatives=64.5), 'num_negatives'), (dict(relation='learned', dim=True), 'dim'), (dict(tau=float('nan')), 'tau'),
    (dict(dim=64), 'direction'), (dict(center='anchor'), 'direction')])
def test_wrong_settings_are_named(settings, word):
    with pytest.raises(InputError, match=word):
        RelationContrastLoss(**settings)


def test_a_queue_shorter_than_the_batch_is_refused():
    loss = built(RelationContrastLoss(num_negatives=4), 6, 5)
    with pytest.raises(InputError, match='num_negatives=4'):
        call(loss, torch.randn(6, 6).double(), torch.randn(6, 5).double(), torch.arange(6))
