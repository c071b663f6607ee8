"""Attention transfer (Zagoruyko and Komodakis, ICLR 2017, https://arxiv.org/abs/1612.03928): look where the teacher looks."""
from torch import Tensor
from torch.nn import functional as F

from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import DistillLoss
from .stages import image_ratio, pair_wide_stages, paired_maps


def attention_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Eq. 2 for one pair of stages, of C_s and C_t channels and one size, (N, C, H, W) -> scalar.

    Attention is the mean over channels of the squared map, flattened and l2-normalized. Like the authors' code this is the
    mean squared difference over images and positions, where the paper writes a norm.
    """
    def attention(x: Tensor) -> Tensor:
        return F.normalize(x.square().mean(1).flatten(1))

    return F.mse_loss(attention(student_map), attention(teacher_map))


@LOSSES.register_module()
class ATLoss(DistillLoss):
    """:func:`attention_loss` summed over the stages that go together and have more than one pixel, at the smaller's size.

    The squared distance of two unit vectors is about as large with few positions, their mean over them is not. So it is
    multiplied by :func:`image_ratio`, which makes it that of feature maps repeated to the teacher's size. The weight was
    published for images of one size, and is again what it was.
    """

    needs = frozenset({'feature_maps'})

    def build(self, student: NetworkOutput, teacher: NetworkOutput) -> None:
        """Pair the stages."""
        self.pairs = pair_wide_stages(student, teacher)

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """:func:`attention_loss` of all stages, a scalar."""
        total = sum(attention_loss(*maps) for maps in paired_maps(student, teacher, self.pairs))
        return total * image_ratio(student, teacher)
