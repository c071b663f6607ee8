"""Selective knowledge distillation: the selection against its energy and loops, and what it selects."""
import math

import pytest
import torch
from distil_step import random, step

from mmcrrcd.errors import InputError
from mmcrrcd.models import SKDLoss, skd_loss
from mmcrrcd.models.losses.skd import informativeness, neighbor_graph
from mmcrrcd.structures import Batch, NetworkOutput

LABELS = torch.tensor([0, 0, 1, 1, 2, 0, 2, 1])


def slow_graph(embedding, neighbors):
    """w[i][j] of the directed graph."""
    n = len(embedding)
    cosine = [[(x @ y / x.norm() / y.norm()).item() for y in embedding] for x in embedding]
    graph = [[0.0] * n for _ in range(n)]
    for i in range(n):
        nearest = sorted((j for j in range(n) if j != i), key=lambda j: -cosine[i][j])[:neighbors]
        for j in nearest:
            graph[i][j] = max(cosine[i][j], 0.0)
    return graph


def energy(a, embedding, labels, neighbors, smoothness):
    graph, n, total = slow_graph(embedding, neighbors), len(embedding), 0
    for i in range(n):
        gain = sum(graph[i][j] * (1 if labels[i] == labels[j] else -1) for j in range(n)) / neighbors
        total = total + (a[i] - gain)**2
        for j in range(i + 1, n):
            total = total + smoothness * max(graph[i][j], graph[j][i]) * (a[i] - a[j])**2
    return total


@pytest.mark.parametrize('smoothness', [0.0, 0.7, 5.0])
@pytest.mark.parametrize('neighbors', [1, 3, 7])
def test_the_scores_minimise_the_energy(neighbors, smoothness):
    embedding = random(8, 4)
    score = informativeness(embedding, LABELS, neighbors, smoothness).requires_grad_()
    gradient, = torch.autograd.grad(energy(score, embedding, LABELS, neighbors, smoothness), score)
    torch.testing.assert_close(gradient, torch.zeros(8).double(), rtol=0, atol=1e-12)       # the energy is convex


@pytest.mark.parametrize('ratio', [0.1, 0.5, 0.6, 1.0])
def test_equals_loops(ratio):
    student, teacher = random(8, 3), random(8, 3, seed=1)
    score = informativeness(teacher, LABELS, 3, 1.0).tolist()
    chosen = sorted(range(8), key=lambda i: -score[i])[:math.ceil(8 * ratio)]
    expected = sum((student[i, d] - teacher[i, d]).item()**2 for i in chosen for d in range(3)) / (3 * len(chosen))
    assert skd_loss(student, teacher, LABELS, ratio, 3, 1.0).item() == pytest.approx(expected, abs=1e-12)


def test_those_in_the_middle_of_their_class_are_selected():
    """Two tight classes, and one sample of each on the other's side."""
    teacher = torch.tensor([[9, 1], [9, 0], [8, 1], [1, 9], [0, 9], [1, 8], [1, 9.5], [9.5, 1]]).double()
    labels = torch.tensor([0, 0, 0, 1, 1, 1, 0, 1])
    score = informativeness(teacher, labels, 3, 0.5)
    assert score[:6].min() > 0 > score[6:].max()
    student = torch.zeros(8, 2).double().requires_grad_()
    gradient, = torch.autograd.grad(skd_loss(student, teacher, labels, 0.75, 3, 0.5), student)
    assert gradient.abs().sum(1).nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_the_graph_is_sparse_and_without_loops():
    graph = neighbor_graph(random(8, 4), 3)
    torch.testing.assert_close(graph, torch.tensor(slow_graph(random(8, 4), 3)).double())
    assert (graph > 0).sum(1).max() <= 3 and not graph.diagonal().any()


@pytest.mark.parametrize('n', [1, 2])
def test_batches_smaller_than_the_neighborhood(n):
    student, teacher = random(n, 3), random(n, 3, seed=1)
    value = skd_loss(student, teacher, LABELS[:n], 1.0, 5, 1.0)
    torch.testing.assert_close(value, (student - teacher).square().mean())


def test_gradients():
    teacher = random(6, 3, seed=1)
    assert torch.autograd.gradcheck(lambda s: skd_loss(s, teacher, LABELS[:6], 0.5, 3, 1.0), random(6, 3).requires_grad_())


def test_module_regresses_to_the_teachers_width():
    student, teacher = (NetworkOutput((), random(8, d, seed=d), torch.zeros(8, 3)) for d in (3, 5))
    loss = SKDLoss(ratio=0.5, neighbors=3)
    loss.build(student, teacher)
    loss.double()
    regressed = student.embedding @ loss.map.weight.T + loss.map.bias
    expected = skd_loss(regressed, teacher.embedding, LABELS, 0.5, 3, 1.0)
    torch.testing.assert_close(loss(student, teacher, Batch(LABELS, None)), expected)


@pytest.mark.parametrize('resolution, amp', [(8, False), (8, True), (None, False)])
def test_a_step(resolution, amp):
    model, _ = step(dict(type='mmcrrcd.SKDLoss'), resolution, amp)
    assert model.losses['method'].map.weight.shape == (32, 16)


@pytest.mark.parametrize('settings', [dict(ratio=0), dict(ratio=1.5), dict(neighbors=0), dict(smoothness=-1)])
def test_wrong_settings_are_refused(settings):
    with pytest.raises(InputError, match=next(iter(settings))) as error:
        SKDLoss(**settings)
    assert '\n' not in str(error.value)
