"""Probabilistic knowledge transfer (Passalis and Tefas, ECCV 2018, https://arxiv.org/abs/1803.10837)."""
from torch import Tensor

from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import DistillLoss


def pkt_loss(student: Tensor, teacher: Tensor, eps: float = 1e-7) -> Tensor:
    """Divergence of the teacher's and the student's probabilities of picking j as i's neighbor, of embeddings b x D_s and
    b x D_t.

    The probabilities are cosines, moved to 0..1 and divided by their sum over j. As in the authors' code i itself counts as a
    neighbor. The terms are averaged over all b x b, not summed over j.
    """
    def probabilities(x: Tensor) -> Tensor:
        x = x / (x.norm(dim=1, keepdim=True) + eps)
        similarity = (x @ x.T + 1) / 2
        return similarity / similarity.sum(1, keepdim=True)

    ours, theirs = probabilities(student), probabilities(teacher)
    return (theirs * ((theirs + eps) / (ours + eps)).log()).mean()


@LOSSES.register_module()
class PKTLoss(DistillLoss):
    """:func:`pkt_loss` of the embeddings."""

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """:func:`pkt_loss` of the embeddings, a scalar."""
        return pkt_loss(student.embedding, teacher.embedding)
