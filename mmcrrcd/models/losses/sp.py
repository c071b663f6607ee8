"""Similarity-preserving distillation (Tung and Mori, ICCV 2019, https://arxiv.org/abs/1907.09682)."""
from torch import Tensor, nn
from torch.nn import functional as F

from mmcrrcd.errors import InputError
from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, Stream

from .stages import at_least_float32


def sp_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Eq. 4: squared distance of the row-normalised Gram matrices, over b^2. (b, ...) and (b, ...) -> scalar."""
    def similarity(x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return F.normalize(flat @ flat.T)

    return F.mse_loss(similarity(student_map), similarity(teacher_map))


@LOSSES.register_module()
class SPLoss(nn.Module):
    """:func:`sp_loss` of the last maps; teacher and student may differ in width and resolution."""

    def prepare(self, student: Stream, teacher: Stream) -> None:
        """Check that both networks give maps."""
        for name, stream in (('student', student), ('teacher', teacher)):
            if not stream.maps:
                raise InputError(f'SPLoss compares the last maps of the two networks, and the {name} gives none')

    def forward(self, student: Stream, teacher: Stream, batch: Batch) -> Tensor:
        return sp_loss(at_least_float32(student.maps[-1]), at_least_float32(teacher.maps[-1]))
