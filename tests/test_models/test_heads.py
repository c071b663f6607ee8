"""Margin heads against loops in plain float64, their gradients where angles end, half precision, and their use."""
import math

import pytest
import torch
from mmcrrcd.errors import InputError
from mmcrrcd.models import (ArcFaceMargin, CosFaceMargin, CosineHead, Distiller, EKD, KDLoss, MagFaceHead, PairPreprocessor,
                            SphereFaceMargin, arcface_cosine, extract, magface_margin, magface_regularizer, sphereface_cosine)
from mmcrrcd.registry import MODELS
from mmcrrcd.structures import NetworkOutput
from mmpretrain.structures import DataSample
from tiny import CLASSES, MEAN, SIZE, STD, network
from torch import Tensor
from torch.nn import functional as F

NORMS, MARGINS = (10.0, 110.0), (0.45, 0.8)
HALVES = (torch.float16, torch.bfloat16)


def slow_arcface(theta: float, m: float) -> float:
    return math.cos(theta + m) if theta + m < math.pi else math.cos(theta) - m * math.sin(m)


def slow_sphereface(theta: float, m: int) -> float:
    for k in range(m):
        if k * math.pi / m <= theta <= (k + 1) * math.pi / m:
            return (-1)**k * math.cos(m * theta) - 2 * k
    raise AssertionError(theta)


def slow_loss(embedding: Tensor, weight: Tensor, labels: Tensor, scale: float, target) -> float:
    """The mean over the images of -log(e^{s target} / (e^{s target} + the sum over the other classes of e^{s cos}))."""
    total = 0.0
    for x, label in zip(embedding.tolist(), labels.tolist()):
        norm = math.sqrt(sum(v * v for v in x))
        cosines = []
        for w in weight.tolist():
            cosines.append(sum(a * b for a, b in zip(x, w)) / norm / math.sqrt(sum(v * v for v in w)))
        cosines[label] = target(math.acos(cosines[label]), norm)
        highest = max(cosines)
        total += math.log(sum(math.exp(scale * (c - highest)) for c in cosines)) - scale * (cosines[label] - highest)
    return total / len(embedding)


HEADS = {
    'plain': (dict(type=CosineHead), lambda theta, norm: math.cos(theta)),
    'arcface': (dict(type=CosineHead, margin=dict(type=ArcFaceMargin)), lambda theta, norm: slow_arcface(theta, 0.5)),
    'cosface': (dict(type=CosineHead, margin=dict(type=CosFaceMargin)), lambda theta, norm: math.cos(theta) - 0.35),
    'sphereface': (dict(type=CosineHead, margin=dict(type=SphereFaceMargin)), lambda theta, norm: slow_sphereface(theta, 4)),
    'magface': (dict(type=MagFaceHead), lambda theta, norm: slow_arcface(theta, slow_margin(norm)))}
every_head = pytest.mark.parametrize('name', HEADS)


def slow_margin(norm: float) -> float:
    a = min(max(norm, 10), 110)
    return (0.8 - 0.45) / (110 - 10) * (a - 10) + 0.45


def build(name: str, scale: float = 8.0, dtype: torch.dtype = torch.float64) -> CosineHead:
    torch.manual_seed(0)
    return MODELS.build(dict(HEADS[name][0], num_classes=5, in_channels=6, scale=scale)).to(dtype)


def batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Ten embeddings in all directions, of norms from 4 to 130, and their labels."""
    generator = torch.Generator().manual_seed(3)
    directions = F.normalize(torch.randn(10, 6, dtype=torch.float64, generator=generator))
    embedding = directions * torch.linspace(4, 130, 10, dtype=torch.float64)[:, None]
    return embedding.to(dtype), torch.arange(10) % 5


def loss_of(head: CosineHead, embedding: Tensor, labels: Tensor) -> Tensor:
    """As :func:`classification_loss` asks for it."""
    logits = head((embedding, ))
    if hasattr(head, 'loss_of'):
        return head.loss_of(NetworkOutput((), embedding, logits), labels)
    return head.loss_module(logits, labels)


@every_head
def test_equals_the_papers_formula_in_loops(name):
    head, (embedding, labels) = build(name), batch()
    expected = slow_loss(embedding, head.weight.detach(), labels, 8.0, HEADS[name][1])
    if name == 'magface':
        norms = [min(max(x.norm().item(), 10), 110) for x in embedding]
        expected += 35 * sum(1 / a + a / 110**2 for a in norms) / len(norms)
    assert loss_of(head, embedding, labels).item() == pytest.approx(expected, abs=1e-12)


@every_head
def test_gradients_are_those_of_the_formula(name):
    """Central differences of the loops, at the embeddings and the classes."""
    head, (embedding, labels) = build(name), batch()
    embedding.requires_grad_()
    loss_of(head, embedding, labels).backward()

    def slow(x: Tensor, weight: Tensor) -> float:
        value = slow_loss(x, weight, labels, 8.0, HEADS[name][1])
        if name == 'magface':
            norms = [min(max(row.norm().item(), 10), 110) for row in x]
            value += 35 * sum(1 / a + a / 110**2 for a in norms) / len(norms)
        return value

    x, w = embedding.detach(), head.weight.detach()
    for i, j in ((0, 1), (2, 5), (4, 0), (7, 3), (9, 2)):
        step = torch.zeros_like(x)
        step[i, j] = 1e-5
        difference = (slow(x + step, w) - slow(x - step, w)) / 2e-5
        assert embedding.grad[i, j].item() == pytest.approx(difference, abs=1e-7)
    for i, j in ((0, 1), (2, 5), (4, 0)):
        step = torch.zeros_like(w)
        step[i, j] = 1e-7                                # the classes are short, 0.01 an entry
        difference = (slow(x, w + step) - slow(x, w - step)) / 2e-7
        assert head.weight.grad[i, j].item() == pytest.approx(difference, rel=1e-4, abs=1e-4)


@every_head
def test_logits_are_scaled_cosines_without_margin(name):
    head, (embedding, labels) = build(name), batch()
    logits = head((None, embedding))
    expected = torch.stack([8 * F.cosine_similarity(x[None], head.weight) for x in embedding])
    torch.testing.assert_close(logits, expected)
    loss_of(head, embedding, labels)
    torch.testing.assert_close(head((embedding, )), logits)
    assert head.pre_logits((None, embedding)) is embedding


def test_arcface_over_all_angles():
    """Also where the margin passes pi, and it falls everywhere, which cos(theta + m) alone does not."""
    theta = torch.linspace(0.01, math.pi - 0.01, 400, dtype=torch.float64)
    for m in (0.0, 0.3, 0.5, 1.2):
        value = arcface_cosine(theta.cos(), m)
        torch.testing.assert_close(value, torch.tensor([slow_arcface(t, m) for t in theta.tolist()], dtype=torch.float64))
        assert (value.diff() < 0).all()
    assert ((theta + 0.5).cos().diff() > 0).any()


@pytest.mark.parametrize('m', [1, 2, 3, 4, 5])
def test_sphereface_over_all_angles(m):
    theta = torch.linspace(0, math.pi, 401, dtype=torch.float64)
    value = sphereface_cosine(theta.cos(), m)
    expected = torch.tensor([slow_sphereface(t, m) for t in theta.tolist()], dtype=torch.float64)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-6)       # acos is rough at its ends
    assert (value.diff() < 1e-9).all() and value[0] == 1 and value[-1] == pytest.approx(1 - 2 * m)


def test_magfaces_margin_and_regularizer():
    norm = torch.tensor([10.0, 60.0, 110.0], dtype=torch.float64)
    torch.testing.assert_close(magface_margin(norm, NORMS, MARGINS), torch.tensor([0.45, 0.625, 0.8], dtype=torch.float64))
    g = magface_regularizer(torch.linspace(10, 110, 101, dtype=torch.float64), 110)
    assert g[0] == pytest.approx(1 / 10 + 10 / 12100) and g[-1] == pytest.approx(2 / 110) and (g.diff() < 0).all()


def test_magfaces_norm_learns_between_its_bounds_only():
    head, (embedding, labels) = build('magface'), batch()
    embedding.requires_grad_()
    loss_of(head, embedding, labels).backward()
    along = (embedding.grad * F.normalize(embedding.detach())).sum(1)
    norm = embedding.detach().norm(dim=1)
    outside = (norm < 10) | (norm > 110)
    assert outside.sum() == 3 and along[outside].abs().max() < 1e-12 and along[~outside].abs().min() > 1e-6


@every_head
@pytest.mark.parametrize('dtype', (torch.float32, *HALVES), ids=str)
def test_finite_where_angles_end(name, dtype):
    """Embeddings along their class, against it, and of equal numbers whose cosine rounds beyond 1; scale 64."""
    head = build(name, scale=64.0, dtype=torch.float32)
    with torch.no_grad():
        head.weight[0] = 1 / 3
    rows = [head.weight[0], -head.weight[0], head.weight[1] * 900, -head.weight[2] * 1e-2, torch.full((6, ), 0.1)]
    embedding = torch.stack(rows).detach().to(dtype).requires_grad_()
    value = loss_of(head, embedding, torch.tensor([0, 0, 1, 2, 0]))
    value.backward()
    assert value.isfinite() and embedding.grad.isfinite().all() and head.weight.grad.isfinite().all()


@pytest.mark.parametrize('margin', [ArcFaceMargin(), CosFaceMargin(), SphereFaceMargin()], ids=lambda m: type(m).__name__)
def test_cosines_at_and_beyond_one(margin):
    cosine = torch.tensor([1, -1, 1 + 1e-6, -1 - 1e-6, 1 - 1e-7, -1 + 1e-7], requires_grad=True)
    value = margin(cosine)
    value.sum().backward()
    assert value.isfinite().all() and cosine.grad.isfinite().all()
    ends = margin(torch.tensor([1.0, -1.0], dtype=torch.float64))
    expected = dict(ArcFaceMargin=(math.cos(0.5), -1 - 0.5 * math.sin(0.5)), CosFaceMargin=(0.65, -1.35),
                    SphereFaceMargin=(1.0, -7.0))[type(margin).__name__]
    torch.testing.assert_close(value[:2].tolist(), list(expected), rtol=0, atol=1e-3)
    torch.testing.assert_close(ends.tolist(), list(expected), rtol=0, atol=1e-3)


@every_head
@pytest.mark.parametrize('dtype', HALVES, ids=str)
def test_close_to_float32_in_half_precision(name, dtype):
    """An embedding that came in half precision: the head goes on in float32, so only its rounding is seen."""
    head = build(name, scale=64.0, dtype=torch.float32)
    embedding, labels = batch(dtype)
    with torch.autocast('cpu', torch.bfloat16):
        logits = head((embedding, ))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, head((embedding.float(), )))
    stream_loss = loss_of(head, embedding.float(), labels)
    torch.testing.assert_close(stream_loss, loss_of(head, batch(torch.float32)[0], labels), rtol=0.02, atol=0.05)


def test_the_margin_makes_the_loss_larger_and_a_margin_of_zero_leaves_it():
    embedding, labels = batch()
    plain = loss_of(build('plain'), embedding, labels)
    for name in ('arcface', 'cosface', 'sphereface', 'magface'):
        assert loss_of(build(name), embedding, labels) > plain
    head = build('plain')
    for margin in (ArcFaceMargin(0.0), CosFaceMargin(0.0), SphereFaceMargin(1)):
        none = CosineHead(5, 6, scale=8.0, margin=margin).to(torch.float64)
        none.load_state_dict(head.state_dict())
        torch.testing.assert_close(loss_of(none, embedding, labels), plain)


@every_head
def test_in_mmpretrains_own_training(name):
    """``ImageClassifier`` alone, without a distiller, finds the same loss."""
    head, (embedding, labels) = build(name), batch(torch.float32)
    samples = [DataSample().set_gt_label(label) for label in labels.tolist()]
    value = head.float().loss((embedding, ), samples)['loss']
    torch.testing.assert_close(value, loss_of(head, embedding, labels))
    assert [sample.pred_label.item() for sample in head.predict((embedding, ))] == head((embedding, )).argmax(1).tolist()


def student(name: str) -> dict:
    return dict(network(), head=dict(HEADS[name][0], num_classes=CLASSES, in_channels=16))


@every_head
@pytest.mark.parametrize('algorithm', (Distiller, EKD))
def test_as_the_classification_loss_of_a_distiller(name, algorithm):
    """The loss of the head, margin and all; KD compares logits without it."""
    torch.manual_seed(0)
    objective = dict(kd=dict(type=KDLoss, weight=1.0))
    model = algorithm(student(name), student(name), objective=objective, input_size=SIZE,
                      data_preprocessor=PairPreprocessor(mean=MEAN, std=STD, resolution=8)).eval()
    inputs = torch.randint(0, 256, (8, 3, SIZE, SIZE), dtype=torch.uint8)
    data = model.data_preprocessor(dict(inputs=inputs, labels=torch.arange(8) % CLASSES, index=torch.arange(8)), training=True)
    parts = model(**data, mode='loss')
    pair, labels = data['inputs'], data['data_samples'].labels
    ours, theirs = extract(model.student, pair.low), extract(model.teacher, pair.high)
    torch.testing.assert_close(parts['loss_cls'], loss_of(model.student.head, ours.embedding, labels))
    torch.testing.assert_close(parts['loss_kd'], KDLoss()(ours, theirs, None))
    if algorithm is EKD:
        torch.testing.assert_close(parts['loss_teacher'], loss_of(model.teacher.head, theirs.embedding, labels))
    sum(value for key, value in parts.items() if key.startswith('loss')).backward()
    assert model.student.head.weight.grad.abs().sum() > 0


@pytest.mark.parametrize('make, message', [
    (lambda: ArcFaceMargin(-0.1), "ArcFace's margin"), (lambda: ArcFaceMargin(2.0), "ArcFace's margin"),
    (lambda: CosFaceMargin(-0.1), "CosFace's margin"), (lambda: SphereFaceMargin(0), "SphereFace's multiplier"),
    (lambda: SphereFaceMargin(1.5), "SphereFace's multiplier"), (lambda: CosineHead(0), 'num_classes and scale'),
    (lambda: CosineHead(5, scale=0), 'num_classes and scale'), (lambda: MagFaceHead(5, norms=(110, 10)), 'norms go up'),
    (lambda: MagFaceHead(5, margins=(0.4, 2.0)), 'norms go up')])
def test_settings_that_cannot_work(make, message):
    with pytest.raises(InputError, match=message) as error:
        make()
    assert '\n' not in str(error.value)
