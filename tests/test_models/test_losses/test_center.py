"""Center loss against loops, its centers by Eq. 4, and an objective without a teacher."""
import pytest
import torch
from distil_step import random
from mmcrrcd.errors import InputError
from mmcrrcd.models import CenterLoss, Distiller, KDLoss, PairPreprocessor, center_loss
from mmcrrcd.structures import Batch, NetworkOutput
from tiny import CLASSES, MEAN, SIZE, STD, STUDENT, TEACHER


def made(classes: int = 4, width: int = 3, rate: float = 0.5) -> CenterLoss:
    loss = CenterLoss(rate)
    loss.build(NetworkOutput((), torch.zeros(2, width), torch.zeros(2, classes)), None)
    return loss.double()


def test_equals_eq_2_and_its_gradient_is_eq_3():
    loss, x, labels = made(), random(5, 3).requires_grad_(), torch.tensor([0, 2, 2, 3, 2])
    loss.centers.copy_(random(4, 3, seed=1))
    before = loss.centers.clone()
    value = loss(NetworkOutput((), x, None), None, Batch(labels, None))
    expected = 0.0
    for i, label in enumerate(labels):
        expected += sum((a - b)**2 for a, b in zip(x[i].tolist(), before[label].tolist())) / 2
    assert value.item() == pytest.approx(expected / 5)
    value.backward()
    torch.testing.assert_close(x.grad, (x.detach() - before[labels]) / 5)
    torch.testing.assert_close(value, center_loss(x, before[labels]))


def test_centers_move_by_eq_4():
    loss = made(rate=0.3)
    loss.centers.copy_(random(4, 3, seed=1))
    for seed, labels in enumerate(([0, 2, 2, 3, 2, 0], [1, 1, 1, 1, 1, 1], [3, 2, 1, 0, 0, 0]), start=2):
        x, labels = random(6, 3, seed=seed), torch.tensor(labels)
        expected = loss.centers.clone()
        for j in range(4):
            own = [i for i in range(6) if labels[i] == j]
            delta = sum((loss.centers[j] - x[i] for i in own), torch.zeros(3, dtype=torch.float64)) / (1 + len(own))
            expected[j] -= 0.3 * delta
        loss(NetworkOutput((), x, None), None, Batch(labels, None))
        torch.testing.assert_close(loss.centers, expected)


def test_every_process_has_the_centers_of_all(monkeypatch):
    """Each of two processes sees half the batch, and its centers are those of one that sees the whole."""
    whole, halves = made(), [made(), made()]
    x, labels = random(6, 3), torch.tensor([0, 2, 2, 3, 2, 0])
    whole.update(x, labels)
    monkeypatch.setattr('mmcrrcd.models.losses.center.dist.all_gather',
                        lambda part: [x[:3], x[3:]] if part.is_floating_point() else [labels[:3], labels[3:]])
    for rank, half in enumerate(halves):
        half.update(x[3 * rank:3 * rank + 3], labels[3 * rank:3 * rank + 3])
    assert torch.equal(halves[0].centers, halves[1].centers) and torch.equal(halves[0].centers, whole.centers)


def distiller(**settings) -> Distiller:
    torch.manual_seed(0)
    return Distiller(STUDENT, input_size=SIZE, data_preprocessor=PairPreprocessor(mean=MEAN, std=STD, resolution=8), **settings)


def losses_of(model: Distiller) -> dict:
    inputs = torch.randint(0, 256, (8, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = model.data_preprocessor(dict(inputs=inputs, labels=torch.arange(8) % CLASSES, index=torch.arange(8)), training=True)
    return model(**data, mode='loss')


@pytest.mark.parametrize('amp', (False, True))
def test_an_objective_without_a_teacher(amp):
    model = distiller(objective=dict(center=dict(type=CenterLoss, weight=0.1)))
    assert model.losses.center.centers.shape == (CLASSES, 16) and 'losses.center.centers' in model.state_dict()
    with torch.autocast('cpu', torch.bfloat16, enabled=amp):
        parts = losses_of(model)
    assert {key for key in parts if key.startswith('loss_')} == {'loss_cls', 'loss_center'}
    assert parts['loss_center'] > 0 and parts['loss_center'].dtype == torch.float32
    (parts['loss_cls'] + parts['loss_center']).backward()
    assert model.student.backbone.stem[0].weight.grad.isfinite().all()
    assert model.losses.center.centers.abs().sum(1).min() > 0
    before = model.losses.center.centers.clone()
    model.eval()
    model.student(torch.zeros(2, 3, 8, 8))
    assert torch.equal(model.losses.center.centers, before)


def test_the_loss_shrinks_towards_the_centers():
    model = distiller(objective=dict(center=dict(type=CenterLoss, weight=1.0)), cls_weight=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    values = []
    for _ in range(12):
        value = losses_of(model)['loss_center']
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0] / 2


def test_with_a_teacher_and_other_losses():
    parts = losses_of(distiller(teacher=TEACHER, objective=dict(kd=dict(type=KDLoss), center=dict(type=CenterLoss))))
    assert {'loss_cls', 'loss_kd', 'loss_center'} <= set(parts)


def test_only_the_losses_that_need_a_teacher_are_named():
    with pytest.raises(InputError, match=r'^the objective \(kd\) needs a teacher$'):
        distiller(objective=dict(kd=dict(type=KDLoss), center=dict(type=CenterLoss)))


@pytest.mark.parametrize('rate', (0, 1.5))
def test_rates_that_cannot_work(rate):
    with pytest.raises(InputError, match='rate of the centers'):
        CenterLoss(rate)
