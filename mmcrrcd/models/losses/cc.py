"""Correlation congruence (Peng et al., ICCV 2019, https://arxiv.org/abs/1904.01802), as its published results compute it."""
from torch import Tensor, nn

from mmcrrcd.errors import check_positive
from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import DistillLoss


def cc_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Inner product of ``|s - t|`` of each sample with that of the next, mean over the b - 1 neighbors. (b, d) both -> scalar.

    The paper writes the squared distance of two kernel matrices. This is what the authors gave RepDistiller, and so what
    stands behind CC in the field's tables. A batch of one has no neighbors: zero.
    """
    difference = (student - teacher).abs()
    return (difference[:-1] * difference[1:]).sum() / max(len(difference) - 1, 1)


@LOSSES.register_module()
class CCLoss(DistillLoss):
    """:func:`cc_loss` of the embeddings after one linear layer each, both learned.

    Args:
        dim: width of the two layers.
    """

    def __init__(self, dim: int = 128):
        super().__init__()
        check_positive(whole=True, dim=dim)
        self.dim = dim

    def build(self, student: NetworkOutput, teacher: NetworkOutput) -> None:
        """Make the two linear layers."""
        self.embed_student = nn.Linear(student.embedding.shape[1], self.dim)
        self.embed_teacher = nn.Linear(teacher.embedding.shape[1], self.dim)

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """:func:`cc_loss` of the mapped embeddings, a scalar."""
        return cc_loss(self.embed_student(student.embedding), self.embed_teacher(teacher.embedding))
