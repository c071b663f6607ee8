"""Neuron selectivity transfer (Huang and Wang, 2017, https://arxiv.org/abs/1707.01219)."""
from torch import Tensor
from torch.nn import functional as F

from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import DistillLoss
from .stages import pair_wide_stages, paired_maps


def kernel_mean(a: Tensor, b: Tensor) -> Tensor:
    """Mean of (a_i . b_j)^2 over samples and pairs of channels: (N, Ca, P), (N, Cb, P) -> scalar.

    The sum over pairs is the squared norm of a b^T. It is also the dot product of a^T a and b^T b. The smaller is computed.
    """
    (number, channels_a, pixels), channels_b = a.shape, b.shape[1]
    if pixels**2 < channels_a * channels_b:
        total = ((a.mT @ a) * (b.mT @ b)).sum()
    else:
        total = (a @ b.mT).square().sum()
    return total / (number * channels_a * channels_b)


def nst_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of the channels by a kernel k: mean k_tt + mean k_ss - 2 mean k_st. The kernel is the
    squared dot product.

    A channel is its map as a unit vector over the pixels. (N, Cs, H, W), (N, Ct, H, W) -> scalar, averaged over the batch.
    """
    student, teacher = (F.normalize(x.flatten(2), dim=2) for x in (student_map, teacher_map))
    return kernel_mean(teacher, teacher) + kernel_mean(student, student) - 2 * kernel_mean(student, teacher)


@LOSSES.register_module()
class NSTLoss(DistillLoss):
    """:func:`nst_loss` summed over the stages that go together and have more than one pixel, at the smaller's size."""

    needs = frozenset({'feature_maps'})

    def build(self, student: NetworkOutput, teacher: NetworkOutput) -> None:
        """Pair the stages."""
        self.pairs = pair_wide_stages(student, teacher)

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """:func:`nst_loss` of all stages, a scalar."""
        return sum(nst_loss(*maps) for maps in paired_maps(student, teacher, self.pairs))
