"""Variational information distillation (Ahn et al., CVPR 2019, https://arxiv.org/abs/1904.05835)."""
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcrrcd.errors import InputError, check_positive
from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import DistillLoss
from .stages import pair_stages, paired_maps


def vid_loss(prediction: Tensor, target: Tensor, alpha: Tensor, eps: float = 1e-5) -> Tensor:
    """-log of a Gaussian's density at the teacher's feature map, without its constant, averaged over all elements.

    Args:
        prediction: (N, C, H, W), the Gaussian's mean, regressed from the student's feature map.
        target: (N, C, H, W), the teacher's feature map.
        alpha: (C,). The variance of a channel is softplus of it, + eps.
    """
    variance = (F.softplus(alpha) + eps)[:, None, None]
    return ((prediction - target).square() / variance + variance.log()).mean() / 2


@LOSSES.register_module()
class VIDLoss(DistillLoss):
    """:func:`vid_loss` summed over the stages that go together; regressors and variances are learned.

    A regressor is three 1x1 convolutions without bias, ReLU between them, as wide as the teacher's feature map.

    Args:
        variance: what the variances start at.
        eps: the least variance.
    """

    needs = frozenset({'feature_maps'})

    def __init__(self, variance: float = 5.0, eps: float = 1e-5):
        super().__init__()
        check_positive(variance=variance, eps=eps)
        if variance <= eps:
            raise InputError(f'variance is above eps, the least there is, got {variance} and {eps}')
        self.variance, self.eps = variance, eps

    def build(self, student: NetworkOutput, teacher: NetworkOutput) -> None:
        """Pair the stages, and make a regressor and the variances for each pair."""
        self.pairs = pair_stages(student, teacher)
        self.regressors, self.alphas = nn.ModuleList(), nn.ParameterList()
        for i, j in self.pairs:
            width_s, width_t = student.feature_maps[i].shape[1], teacher.feature_maps[j].shape[1]
            first, *others = (nn.Conv2d(width, width_t, 1, bias=False) for width in (width_s, width_t, width_t))
            self.regressors.append(nn.Sequential(first, nn.ReLU(), others[0], nn.ReLU(), others[1]))
            more = self.variance - self.eps
            alpha = more + math.log(-math.expm1(-more))                  # whose softplus it is
            self.alphas.append(nn.Parameter(torch.full((width_t, ), alpha)))

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """:func:`vid_loss` of all stages, a scalar."""
        maps = paired_maps(student, teacher, self.pairs)
        return sum(vid_loss(regressor(student_map), teacher_map, alpha, self.eps)
                   for (student_map, teacher_map), regressor, alpha in zip(maps, self.regressors, self.alphas))
