"""WCoRD against loops: the critic is 1-Lipschitz, the plan is the minimum, the loss is its definition."""
import math

import pytest
import torch
from distil_step import random, step
from torch.nn import functional as F

from mmcrrcd.errors import InputError
from mmcrrcd.models import WCoRDLoss
from mmcrrcd.models.losses.wcord import LipschitzCritic, dependency, sinkhorn, transport_loss
from mmcrrcd.structures import Batch, NetworkOutput


def slow_plan(cost, epsilon, iterations):
    """Sinkhorn's scaling of exp(-cost / epsilon), entry by entry."""
    n, m = cost.shape
    kernel = [[math.exp(-cost[i, j] / epsilon) for j in range(m)] for i in range(n)]
    u, v = [1.0] * n, [1.0] * m
    for _ in range(iterations):
        u = [1 / n / sum(kernel[i][j] * v[j] for j in range(m)) for i in range(n)]
        v = [1 / m / sum(kernel[i][j] * u[i] for i in range(n)) for j in range(m)]
    return torch.tensor([[u[i] * kernel[i][j] * v[j] for j in range(m)] for i in range(n)], dtype=torch.float64)


@pytest.mark.parametrize('iterations', [1, 7])
def test_plan_equals_loops(iterations):
    cost = random(5, 3).abs()
    torch.testing.assert_close(sinkhorn(cost, 0.3, iterations), slow_plan(cost, 0.3, iterations), rtol=1e-11, atol=0)


def test_the_plan_has_the_right_sums_and_is_the_gradient_of_the_minimum():
    cost = random(6, 6).abs()

    def minimum(cost):
        plan = sinkhorn(cost, 0.2, 3000)
        return (plan * cost).sum() + 0.2 * (plan * plan.log()).sum()

    plan = sinkhorn(cost, 0.2, 3000)
    for dim in (0, 1):
        torch.testing.assert_close(plan.sum(dim), torch.full((6, ), 1 / 6).double())
    for i, j in ((0, 0), (2, 4), (5, 1)):
        step = torch.zeros_like(cost)
        step[i, j] = 1e-5
        slope = (minimum(cost + step) - minimum(cost - step)) / 2e-5
        torch.testing.assert_close(slope, plan[i, j], rtol=1e-6, atol=1e-9)


def test_transport_loss_and_its_gradient():
    """The student moves as if the plan were fixed; where it is the teacher but for order and length, nothing costs."""
    s, t = random(5, 4, seed=0).requires_grad_(), random(5, 4, seed=1)
    cost = torch.stack([torch.stack([1 - F.cosine_similarity(x, y, dim=0) for y in t]) for x in s])
    plan = slow_plan(cost.detach(), 0.1, 20)
    value = transport_loss(s, t, 0.1, 20)
    torch.testing.assert_close(value, (plan * cost).sum())
    torch.testing.assert_close(torch.autograd.grad(value, s), torch.autograd.grad((plan * cost).sum(), s))
    assert transport_loss(3 * t[[4, 0, 1, 3, 2]], t, 0.01, 100) < 1e-6 < value


def trained_critic(width_t=5, width_s=4):
    """A critic whose weights have moved far from their start, with the norms that its power iterations then find."""
    torch.manual_seed(0)
    critic = LipschitzCritic(width_t, width_s, 8).double()
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.add_(3 * torch.randn_like(parameter))
        for _ in range(200):
            critic(torch.zeros(1, width_t).double(), torch.zeros(1, width_s).double())
    return critic.eval()


def test_critic_equals_loops_and_is_1_lipschitz():
    critic = trained_critic()
    t, s = random(40, 5, seed=0), random(30, 4, seed=1)
    values = critic(t, s)
    assert values.shape == (30, 40)
    pair = torch.cat([t[7], s[11]])
    by_hand = critic.out.weight[0] @ torch.relu(critic.hidden.weight @ pair + critic.hidden.bias)
    torch.testing.assert_close(values[11, 7], by_hand)
    for layer in (critic.hidden, critic.out):
        torch.testing.assert_close(torch.linalg.matrix_norm(layer.weight, 2), torch.ones(()).double(), rtol=1e-6, atol=0)
    pairs = torch.cat([t.expand(30, 40, 5), s[:, None].expand(30, 40, 4)], dim=2).flatten(0, 1)
    steepness = (values.flatten()[:, None] - values.flatten()).abs() / torch.cdist(pairs, pairs).clamp(min=1e-9)
    assert 0.05 < steepness.max() < 1 + 1e-6


def test_gradients():
    critic, t = trained_critic(), random(6, 5)
    use = torch.rand(3, 6, generator=torch.Generator().manual_seed(0)) < 0.6

    def value(s):
        values = critic(t, s)
        return dependency(values.diagonal(), values, use)

    torch.autograd.gradcheck(value, random(3, 4, seed=2).requires_grad_())


def outputs(b=4, seed=0):
    student, teacher = (NetworkOutput((), random(b, width, seed=seed + width), torch.zeros(b, 3)) for width in (4, 5))
    return student, teacher, Batch(torch.arange(b) % 3, None)


def test_equals_loops():
    torch.manual_seed(0)
    loss = WCoRDLoss(dim=8, num_negatives=10, epsilon=0.2, iterations=9, local_weight=0.3)
    loss.build(*outputs()[:2])
    loss.double().eval()                                 # the norms stand still
    past = []
    for seed in range(4):
        student, teacher, batch = outputs(seed=10 * seed)
        s, t = F.normalize(student.embedding), F.normalize(teacher.embedding)
        joint, independent = [], []
        for i in range(4):
            joint.append(loss.critic(t[i:i + 1], s[i:i + 1])[0, 0])
            others = [t[k] for k in range(4) if k != i] + past[-10:]
            independent += [loss.critic(other[None], s[i:i + 1])[0, 0] for other in others]
        mapped = F.normalize(student.embedding @ loss.project.weight.T + loss.project.bias)
        cost = 1 - mapped @ t.T
        local = (slow_plan(cost.detach(), 0.2, 9) * cost).sum()
        expected = sum(independent) / len(independent) - sum(joint) / 4 + 0.3 * local
        torch.testing.assert_close(loss(student, teacher, batch), expected, rtol=1e-10, atol=1e-12)
        past += list(t)


def test_the_critic_tells_pairs_of_one_image_from_others():
    """Trained on a student that is a rotated teacher, and on one that has nothing to do with it."""
    gaps = []
    for related in (True, False):
        torch.manual_seed(0)
        loss = WCoRDLoss(dim=32, num_negatives=64, local_weight=0)
        rotation = torch.linalg.qr(torch.randn(6, 6))[0]
        loss.build(*(NetworkOutput((), torch.zeros(2, 6), torch.zeros(2, 3)) for _ in range(2)))
        optimizer = torch.optim.Adam(loss.critic.parameters(), lr=0.02)
        values = []
        for _ in range(150):
            t = torch.randn(32, 6)
            s = t @ rotation if related else torch.randn(32, 6)
            value = loss(NetworkOutput((), s, None), NetworkOutput((), t, None), Batch(torch.zeros(32, dtype=torch.long), None))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            values.append(value.item())
        gaps.append(-sum(values[-20:]) / 20)
    assert gaps[0] > 0.2 and abs(gaps[1]) < 0.05


def test_what_cannot_work_is_said():
    with pytest.raises(InputError, match='epsilon'):
        WCoRDLoss(epsilon=0)
    with pytest.raises(InputError, match='num_negatives is a positive whole number, got 64.5'):
        WCoRDLoss(num_negatives=64.5)
    loss = WCoRDLoss(dim=3, num_negatives=3)
    loss.build(*outputs()[:2])
    with pytest.raises(InputError, match='num_negatives=3'):
        loss.double()(*outputs())


def test_a_step_in_a_distiller():
    model, value = step(dict(type='mmcrrcd.WCoRDLoss', num_negatives=16, dim=16))
    assert -2 < value < 2 and model.losses['method'].queue.pushed == 8


@pytest.mark.parametrize('label', [-100, -1])
def test_a_negative_label_is_no_empty_place(label):
    """Images without a label (-100 in mmpretrain's data) are negatives like any other."""
    def value(labels):
        torch.manual_seed(0)
        loss = WCoRDLoss(dim=8, num_negatives=10)
        loss.build(*outputs()[:2])
        loss.double().eval()
        return [loss(*outputs(seed=seed)[:2], Batch(labels, None)).item() for seed in range(3)]

    assert value(torch.full((4, ), label)) == value(torch.arange(4))
