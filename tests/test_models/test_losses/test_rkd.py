"""Relational knowledge distillation against loops and the published value; batches with equal embeddings."""
import numpy as np
import pytest
import torch
from distil_step import random, step, outputs
from mmcrrcd.models import RKDLoss, rkd_angle_loss, rkd_distance_loss
from utils import GOLDEN


def huber(x: float) -> float:
    return x**2 / 2 if abs(x) < 1 else abs(x) - 0.5


def slow_distance(student, teacher):
    def distances(x):
        found = [[(p - q).norm().item() for q in x] for p in x]
        mean = sum(map(sum, found)) / (len(x) * (len(x) - 1))
        return [[d / mean for d in row] for row in found]

    ours, theirs, b = distances(student), distances(teacher), range(len(student))
    return sum(huber(ours[i][j] - theirs[i][j]) for i in b for j in b) / len(b)**2


def slow_angle(student, teacher):
    def cosine(x, i, j, k):
        if i in (j, k):
            return 0
        to_j, to_k = x[j] - x[i], x[k] - x[i]
        return (to_j @ to_k / to_j.norm() / to_k.norm()).item()

    b = range(len(student))
    return sum(huber(cosine(student, i, j, k) - cosine(teacher, i, j, k)) for i in b for j in b for k in b) / len(b)**3


@pytest.mark.parametrize('ours, slow', [(rkd_distance_loss, slow_distance), (rkd_angle_loss, slow_angle)])
def test_equals_loops(ours, slow):
    student, teacher = random(6, 3), random(6, 5, seed=1)
    student[0] *= 20                                       # the linear part of the Huber loss, too
    assert ours(student, teacher).item() == pytest.approx(slow(student, teacher), abs=1e-12)


def test_equals_the_published_value():
    reference = np.load(GOLDEN / 'reference.npz')
    student, teacher = (torch.from_numpy(reference[key]) for key in ('emb_s', 'emb_t'))
    value = RKDLoss()(*outputs(embedding_s=student, embedding_t=teacher))
    np.testing.assert_allclose(value, reference['out_rkd_d25_a50'], rtol=0, atol=1e-9)


@pytest.mark.parametrize('function', [rkd_distance_loss, rkd_angle_loss])
def test_gradients(function):
    assert torch.autograd.gradcheck(function, (random(5, 3).requires_grad_(), random(5, 4, seed=1)))


@pytest.mark.parametrize('function', [rkd_distance_loss, rkd_angle_loss])
def test_size_and_place_do_not_matter(function):
    teacher = random(6, 4)
    assert function(3 * teacher + 5, teacher).item() == pytest.approx(0, abs=1e-24)


@pytest.mark.parametrize('function', [rkd_distance_loss, rkd_angle_loss])
@pytest.mark.parametrize('student', [torch.ones(4, 3), torch.tensor([[1., 0], [1, 0], [0, 2], [3, 3]]), torch.ones(1, 3)],
                         ids=['all equal', 'two equal', 'one image'])
def test_equal_embeddings_give_finite_gradients(function, student):
    student.requires_grad_()
    value = function(student, random(len(student), 5).float())
    gradient, = torch.autograd.grad(value, student)
    assert value.isfinite() and gradient.abs().max() < 10


def test_near_neighbors_far_from_the_origin_keep_their_distances():
    """In float32, where |x|^2 + |y|^2 - 2xy is rounding error."""
    teacher = random(6, 4)
    student = (100 + 1e-2 * teacher).float()
    exact = student.double()
    for function in (rkd_distance_loss, rkd_angle_loss):
        assert function(student, teacher.float()).item() == pytest.approx(function(exact, teacher).item(), abs=1e-6)


@pytest.mark.parametrize('resolution, amp', [(8, False), (8, True), (None, False)])
def test_a_step(resolution, amp):
    step(dict(type='mmcrrcd.RKDLoss'), resolution, amp)


def test_each_part_has_its_weight():
    arguments = outputs(embedding_s=random(5, 3), embedding_t=random(5, 4, seed=1))
    parts = [function(arguments[0].embedding, arguments[1].embedding) for function in (rkd_distance_loss, rkd_angle_loss)]
    assert parts[0] > 0 and parts[1] > 0
    torch.testing.assert_close(RKDLoss()(*arguments), 25 * parts[0] + 50 * parts[1])
    torch.testing.assert_close(RKDLoss(distance=3, angle=0)(*arguments), 3 * parts[0])
    torch.testing.assert_close(RKDLoss(distance=0, angle=7)(*arguments), 7 * parts[1])
