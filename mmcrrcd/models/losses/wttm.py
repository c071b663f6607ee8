"""Weighted transformed teacher matching, WTTM (Zheng and Yang, ICLR 2024, https://arxiv.org/abs/2402.11148)."""
from torch import Tensor
from torch.nn import functional as F

from mmcrrcd.errors import check_positive
from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import DistillLoss


def wttm_loss(student_logits: Tensor, teacher_logits: Tensor, gamma: float) -> Tensor:
    """Mean over the batch of S KL(q || p_s), where S is the sum of p_t^gamma over the classes, and q = p_t^gamma / S.

    q is the teacher's softmax p_t at temperature 1 / gamma; the student's p_s has no temperature. S is large where the
    teacher is unsure, so such images count more. Logits (N, classes) -> scalar.
    """
    powers = gamma * F.log_softmax(teacher_logits, dim=1)
    log_sum = powers.logsumexp(1, keepdim=True)
    divergence = F.kl_div(F.log_softmax(student_logits, dim=1), powers - log_sum, reduction='none', log_target=True).sum(1)
    return (log_sum.squeeze(1).exp() * divergence).mean()


@LOSSES.register_module()
class WTTMLoss(DistillLoss):
    """:func:`wttm_loss`, beside the classification loss.

    Args:
        gamma: exponent of the teacher's probabilities; published for vgg13 -> vgg8 on CIFAR-100: 0.1 with a weight of 45,
            and 0.2 with a weight of 4 where CRD (0.8) stands beside it. Other pairs have constants of their own.
    """

    needs = frozenset({'logits'})

    def __init__(self, gamma: float = 0.1):
        super().__init__()
        check_positive(gamma=gamma)
        self.gamma = gamma

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """Scalar; reads the logits."""
        return wttm_loss(student.logits, teacher.logits, self.gamma)
