"""Flow of the solution procedure (Yim et al., CVPR 2017, "A Gift from Knowledge Distillation")."""
from itertools import pairwise

from torch import Tensor

from mmcrrcd.errors import InputError
from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import DistillLoss
from .stages import at_least_float32, hint, same_size, stages


def flow(first: Tensor, second: Tensor) -> Tensor:
    """The FSP matrix: dot products of the channels of two feature maps over the number of pixels.

    The larger feature map is averaged to the size of the smaller. (N, C1, H, W), (N, C2, h, w) -> (N, C1, C2).
    """
    first, second = (x.flatten(2) for x in same_size(at_least_float32(first), at_least_float32(second)))
    return first @ second.mT / first.shape[2]


def fsp_loss(student_maps: tuple[Tensor, Tensor], teacher_maps: tuple[Tensor, Tensor]) -> Tensor:
    """Mean squared difference of the FSP matrices of two feature maps of the student and two of the teacher -> scalar."""
    return (flow(*student_maps) - flow(*teacher_maps)).square().mean()


def maps_of(student: NetworkOutput, teacher: NetworkOutput) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The feature maps of both; the stem's only where both have one."""
    if student.has_stem and teacher.has_stem:
        return student.feature_maps, teacher.feature_maps
    return stages(student), stages(teacher)


@LOSSES.register_module()
class FSPLoss(DistillLoss):
    """:func:`fsp_loss`, summed over consecutive feature maps, the stem's included where both networks give it.

    Teacher and student have the same channels; their resolutions may differ. Published as a stage of its own before the
    classification loss: a weight of ``[[0, 1], [30, 1], [30, 0]]`` and ``cls_weight=[[0, 0], [30, 0], [30, 1]]``.
    """

    needs = frozenset({'feature_maps'})

    def build(self, student: NetworkOutput, teacher: NetworkOutput) -> None:
        """Raises InputError where the matrices cannot be compared."""
        channels, channels_t = ([x.shape[1] for x in maps] for maps in maps_of(student, teacher))
        if channels != channels_t or len(channels) < 2:
            raise InputError('FSPLoss needs a teacher and a student with feature maps of the same channels, two at least, '
                             f'got {channels_t} and {channels}{hint(student, teacher)}')

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """:func:`fsp_loss` of neighboring stages, a scalar."""
        return sum(fsp_loss(s, t) for s, t in zip(*map(pairwise, maps_of(student, teacher))))
