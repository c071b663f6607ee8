"""Relational knowledge distillation (Park et al., CVPR 2019, https://arxiv.org/abs/1904.05068)."""
import torch
from torch import Tensor
from torch.nn import functional as F

from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import DistillLoss


def rkd_distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Sec. 3.2.1: Huber loss of the distances of all pairs, over their mean in each network, of embeddings b x D_s and
    b x D_t.
    """
    def distances(x: Tensor) -> Tensor:
        # Without the expansion into inner products, whose rounding hides the distances of near neighbors.
        distance = torch.cdist(x, x, compute_mode='donot_use_mm_for_euclid_dist')
        mean = distance.sum() / (distance > 0).sum().clamp(min=1)
        return distance / mean.clamp(min=1e-12)

    return F.smooth_l1_loss(distances(student), distances(teacher))


def rkd_angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Sec. 3.2.2: Huber loss of the cosines of the angles jik of all triplets, zero where j or k equals i.

    Embeddings of b x D_s and b x D_t -> scalar; takes memory for b^2 D + b^3 numbers of each network.
    """
    def cosines(x: Tensor) -> Tensor:
        difference = x[None] - x[:, None]                       # [i, j] = x_j - x_i
        length = difference.norm(dim=2, keepdim=True)
        unit = difference / length.masked_fill(length == 0, 1)  # equal embeddings: no angle, and no infinite gradient
        return unit @ unit.transpose(1, 2)

    return F.smooth_l1_loss(cosines(student), cosines(teacher))


@LOSSES.register_module()
class RKDLoss(DistillLoss):
    """25 x :func:`rkd_distance_loss` + 50 x :func:`rkd_angle_loss` of the embeddings, the published proportions."""

    def __init__(self, distance: float = 25.0, angle: float = 50.0):
        super().__init__()
        self.distance, self.angle = distance, angle

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """The weighted sum of :func:`rkd_distance_loss` and :func:`rkd_angle_loss`, a scalar."""
        pair = student.embedding, teacher.embedding
        return self.distance * rkd_distance_loss(*pair) + self.angle * rkd_angle_loss(*pair)
