"""A simple recipe for distillation, SRD (Miles and Mikolajczyk, AAAI 2024, https://arxiv.org/abs/2303.11098)."""
import torch
from torch import Tensor, nn

from mmcrrcd.errors import check_positive
from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import DistillLoss


def log_sum_loss(student: Tensor, teacher: Tensor, exponent: float) -> Tensor:
    """log of the sum of ``|s - t|^exponent`` over images and numbers, a soft maximum of the differences. (b, d) both -> scalar.

    The clamp keeps it finite, with a gradient of zero, where the two are equal.
    """
    total = (student - teacher).abs().pow(exponent).sum()
    return total.clamp(min=torch.finfo(total.dtype).tiny).log()


@LOSSES.register_module()
class SRDLoss(DistillLoss):
    """2 x :func:`log_sum_loss` of the embeddings, the student's after a learned linear layer, both after a batch norm.

    The batch norm has neither weight nor bias, and an eps of 1e-4. The weight is 1, beside the classification loss. The
    published recipe adds a KL divergence at temperature 1; no recipe for CIFAR is published.

    Args:
        exponent: of the differences.
    """

    smallest_batch = 2                                   # of one embedding there is no batch norm

    def __init__(self, exponent: float = 4.0):
        super().__init__()
        check_positive(exponent=exponent)
        self.exponent = exponent

    def build(self, student: NetworkOutput, teacher: NetworkOutput) -> None:
        """Makes the linear layer, whose bias the norm would take away, and the norm, always of the batch's statistics."""
        width = teacher.embedding.shape[1]
        self.map = nn.Linear(student.embedding.shape[1], width, bias=False)
        self.norm = nn.BatchNorm1d(width, eps=1e-4, affine=False, track_running_stats=False)

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """Scalar; reads the embeddings."""
        self.check_batch(len(student.embedding))
        return 2 * log_sum_loss(self.norm(self.map(student.embedding)), self.norm(teacher.embedding), self.exponent)
