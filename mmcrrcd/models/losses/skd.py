"""Selective knowledge distillation: regression of the teacher embeddings that a graph over the batch finds informative."""
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from mmcrrcd.errors import InputError
from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import MapLoss


@torch.no_grad()
def neighbor_graph(embedding: Tensor, neighbors: int) -> Tensor:
    """w_ij is the cosine of e_i and e_j, or 0 if that is less, if j is one of the nearest ``neighbors`` of i, else 0. Gives
    (n, n), not symmetric.
    """
    unit = F.normalize(embedding, dim=1)
    cosine = (unit @ unit.T).fill_diagonal_(-torch.inf)
    values, index = cosine.topk(min(neighbors, len(unit) - 1), dim=1)
    return torch.zeros_like(cosine).scatter(1, index, values.clamp(min=0))


@torch.no_grad()
def informativeness(embedding: Tensor, labels: Tensor, neighbors: int, smoothness: float) -> Tensor:
    """How well each teacher embedding stands for its class among the batch, agreed on with its neighbors.

    The minimum over a of sum_i (a_i - g_i)^2 + smoothness x sum_{i<j} max(w_ij, w_ji) (a_i - a_j)^2. The gain g_i is the mean
    of w_ij over the nearest neighbors j. It is positive where j is of the same class, negative where it is of another. It is
    unique and solves (I + smoothness x L) a = g, with L the Laplacian of the graph. (n, D), (n,) -> (n,).
    """
    directed = neighbor_graph(embedding, neighbors)
    sign = torch.where(labels[:, None] == labels, 1.0, -1.0).to(directed)
    gain = (sign * directed).sum(1) / max(min(neighbors, len(labels) - 1), 1)
    edges = torch.maximum(directed, directed.T)
    laplacian = edges.sum(1).diag() - edges
    system = torch.eye(len(labels), out=torch.empty_like(edges)) + smoothness * laplacian
    return torch.linalg.solve_ex(system, gain).result    # solve() would wait for the device; this system is never singular


def skd_loss(student: Tensor, teacher: Tensor, labels: Tensor, ratio: float, neighbors: int, smoothness: float) -> Tensor:
    """Mean squared error over the share ``ratio`` of the batch, rounded up, with the highest :func:`informativeness`.

    Both embeddings (n, D), the student's through its regressor -> scalar.
    """
    score = informativeness(teacher, labels, neighbors, smoothness)
    chosen = score.argsort(descending=True, stable=True)[:math.ceil(ratio * len(labels))]
    return F.mse_loss(student[chosen], teacher[chosen])


@LOSSES.register_module()
class SKDLoss(MapLoss):
    """After Ge et al., Low-resolution Face Recognition in the Wild via Selective Knowledge Distillation, TIP 2019
    (https://arxiv.org/abs/1811.09998). A linear regressor goes from the student's embedding to the selected ones of the
    teacher's.

    From the paper's abstract: the most informative features of the teacher are selected by solving a sparse graph optimization.
    The student, at low resolution, classifies and approximates those features by regression. The paper's equations were not at
    hand, so these are choices of this package. They are a graph over the batch instead of the data set, and its energy, see
    :func:`informativeness`. They also are a fixed share instead of a threshold, and the constants.

    Args:
        ratio: share of the batch that is selected.
        neighbors: edges of each sample in the graph.
        smoothness: weight of the edges against the samples.
    """

    needs_labels = True

    def __init__(self, ratio: float = 0.5, neighbors: int = 5, smoothness: float = 1.0):
        super().__init__()
        if not 0 < ratio <= 1 or neighbors < 1 or smoothness < 0:
            raise InputError(f'ratio is in (0, 1], neighbors at least 1 and smoothness not negative, got {ratio}, '
                             f'{neighbors}, {smoothness}')
        self.ratio, self.neighbors, self.smoothness = ratio, neighbors, smoothness

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """:func:`skd_loss` of the mapped embeddings, a scalar."""
        return skd_loss(self.map(student.embedding), teacher.embedding, batch.labels, self.ratio, self.neighbors,
                        self.smoothness)
