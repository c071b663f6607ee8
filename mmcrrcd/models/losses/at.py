"""Attention transfer (Zagoruyko and Komodakis, ICLR 2017, https://arxiv.org/abs/1612.03928): look where the teacher looks."""
from torch import Tensor, nn
from torch.nn import functional as F

from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, Stream

from .stages import at_least_float32, pair_wide_stages, same_size


def attention_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Eq. 2 for one pair of stages, (N, C_s, h, w) and (N, C_t, H, W) -> scalar.

    Attention is the mean over channels of the squared map, flattened and l2-normalised; like the authors' code this is the
    mean squared difference over images and positions, where the paper writes a norm. The larger map is averaged to the size
    of the smaller, and the positions that count are the teacher's: the squared distance of two unit vectors is as large with
    few, so their own mean would make the published weight too large by as much as the student's map is smaller.
    """
    def attention(x: Tensor) -> Tensor:
        return F.normalize(x.square().mean(1).flatten(1))

    student, teacher = (attention(x) for x in same_size(student_map, teacher_map))
    return (student - teacher).square().sum(1).mean() / teacher_map[0, 0].numel()


@LOSSES.register_module()
class ATLoss(nn.Module):
    """:func:`attention_loss` summed over the stages that go together and have more than one pixel."""

    def prepare(self, student: Stream, teacher: Stream) -> None:
        """Pair the stages."""
        self.pairs = pair_wide_stages(student, teacher)

    def forward(self, student: Stream, teacher: Stream, batch: Batch) -> Tensor:
        return sum(attention_loss(at_least_float32(student.maps[i]), at_least_float32(teacher.maps[j]))
                   for i, j in self.pairs)
