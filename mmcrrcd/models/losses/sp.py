"""Similarity-preserving distillation (Tung and Mori, ICCV 2019, https://arxiv.org/abs/1907.09682)."""
from torch import Tensor
from torch.nn import functional as F

from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import DistillLoss
from .stages import at_least_float32


def sp_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Eq. 4: squared distance of the row-normalized Gram matrices, over b^2. Of b rows each, of any shape -> scalar."""
    def similarity(x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return F.normalize(flat @ flat.T)

    return F.mse_loss(similarity(student_map), similarity(teacher_map))


@LOSSES.register_module()
class SPLoss(DistillLoss):
    """:func:`sp_loss` of the last feature maps; teacher and student may differ in width and resolution."""

    needs = student_needs = frozenset({'feature_maps'})

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """:func:`sp_loss` of the last feature maps, a scalar."""
        return sp_loss(at_least_float32(student.feature_maps[-1]), at_least_float32(teacher.feature_maps[-1]))
