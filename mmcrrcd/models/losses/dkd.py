"""Decoupled knowledge distillation (Zhao et al., CVPR 2022, https://arxiv.org/abs/2203.08679)."""
import torch
from torch import Tensor
from torch.nn import functional as F

from mmcrrcd.errors import check_positive
from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import DistillLoss


def decouple(logits: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities of target against all other classes (N, 2), and of the others among themselves (N, classes - 1)."""
    log_p = F.log_softmax(logits / temperature, dim=1)
    others = torch.arange(logits.shape[1] - 1, device=labels.device)
    others = log_p.gather(1, others + (others >= labels[:, None]))
    rest = others.logsumexp(1, keepdim=True)
    return torch.cat([log_p.gather(1, labels[:, None]), rest], dim=1), others - rest


def dkd_loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, alpha: float, beta: float,
             temperature: float) -> Tensor:
    """Eq. 7: T^2 (alpha TCKD + beta NCKD), averaged over the batch.

    TCKD is the KL divergence of target against the rest, NCKD that of the other classes among themselves. What :func:`kd_loss`
    computes is TCKD + (1 - the teacher's probability of the target) NCKD. Logits (N, classes) and N labels -> scalar.
    """
    student, teacher = (decouple(logits, labels, temperature) for logits in (student_logits, teacher_logits))
    target, rest = (F.kl_div(s, t, reduction='batchmean', log_target=True) for s, t in zip(student, teacher))
    return temperature**2 * (alpha * target + beta * rest)


@LOSSES.register_module()
class DKDLoss(DistillLoss):
    """:func:`dkd_loss` with its constants. The published warm-up is a weight of ``[[0, 0.05], [19, 1]]``.

    Args:
        alpha: weight of the target class against the rest.
        beta: weight of the other classes among themselves; published for CIFAR-100: 2 (resnet56 -> resnet20, resnet110 ->
            resnet32), 6 (vgg13, and wrn_40_2 for a WRN, as teachers), else 8.
        temperature: T.
    """

    needs = frozenset({'logits'})
    needs_labels = True

    def __init__(self, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0):
        super().__init__()
        check_positive(temperature=temperature)
        self.alpha, self.beta, self.temperature = alpha, beta, temperature

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """:func:`dkd_loss`, a scalar."""
        return dkd_loss(student.logits, teacher.logits, batch.labels, self.alpha, self.beta, self.temperature)
