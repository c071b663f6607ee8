"""Activation boundaries (Heo et al., AAAI 2019, https://arxiv.org/abs/1811.03233)."""
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcrrcd.errors import check_positive
from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import DistillLoss
from .stages import at_least_float32, pair_stages


def ab_loss(student_pre_activation: Tensor, teacher_map: Tensor, margin: float) -> Tensor:
    """The sum of max(m - s, 0)^2 where the teacher's neuron is on. The same with m + s where it is off. All x 3 / (1000 N).

    m is ``margin``, s is ``student_pre_activation`` (N, C, H, W), before its activation. Of ``teacher_map``, of the same shape,
    only the signs count, so it may be after its ReLU. The factor 3 / 1000 is that of the published code. -> scalar.
    """
    signed = torch.where(teacher_map > 0, -student_pre_activation, student_pre_activation)
    return F.relu(margin + signed).square().sum() * 3 / 1000 / len(signed)


@LOSSES.register_module()
class ABLoss(DistillLoss):
    """:func:`ab_loss`, summed over the n stages of :func:`pair_stages`, the i-th weighted by 2^(i - n + 1).

    Where the channels differ a 1x1 convolution and BN bring the student's feature map to the teacher's. Where the teacher's
    feature map is larger, r times, a transposed convolution of r x r pixels and stride r does. So the r x r neurons that
    stand over one of the student's pixels are read off it by different weights. What sticks out is averaged away, as is a
    larger feature map of the student. Published as a stage of its own before the classification loss: a weight of ``[[0, 1],
    [30, 1], [30, 0]]`` and ``cls_weight=[[0, 0], [30, 0], [30, 1]]``.

    Args:
        margin: how far from zero a neuron shall be.
    """

    needs = frozenset({'feature_maps'})
    student_needs = frozenset({'pre_activations'})

    def __init__(self, margin: float = 1.0):
        super().__init__()
        check_positive(margin=margin)
        self.margin = margin

    def build(self, student: NetworkOutput, teacher: NetworkOutput) -> None:
        """Make the connectors."""
        self.pairs = pair_stages(student, teacher)
        self.connectors = nn.ModuleList()
        for i, j in self.pairs:
            (width, *size), (width_t, *size_t) = student.feature_maps[i].shape[1:], teacher.feature_maps[j].shape[1:]
            times = tuple(math.ceil(theirs / ours) for ours, theirs in zip(size, size_t))
            if times == (1, 1):
                layers = [nn.Conv2d(width, width_t, 1, bias=False)] if width != width_t else []
            else:                                        # a batch of another resolution is brought to this one first
                layers = [nn.AdaptiveAvgPool2d(size), nn.ConvTranspose2d(width, width_t, times, times, bias=False)]
            self.connectors.append(nn.Sequential(*layers, nn.BatchNorm2d(width_t)) if layers else nn.Identity())

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """:func:`ab_loss` of all stages, a scalar."""
        total = 0
        for exponent, ((i, j), connector) in enumerate(zip(self.pairs, self.connectors), 1 - len(self.pairs)):
            pre_activation = connector(at_least_float32(student.pre_activations[i - student.has_stem]))     # the stem has none
            target = teacher.pre_activations[j - teacher.has_stem] if teacher.pre_activations else teacher.feature_maps[j]
            if pre_activation.shape[2:] != target.shape[2:]:
                pre_activation = F.adaptive_avg_pool2d(pre_activation, target.shape[2:])
            total = total + 2.0**exponent * ab_loss(pre_activation, target, self.margin)
        return total
