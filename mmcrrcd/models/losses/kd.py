"""Knowledge distillation: the student's softened answers follow the teacher's."""
from torch import Tensor
from torch.nn import functional as F

from mmcrrcd.errors import check_positive
from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import DistillLoss


def kd_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Eq. 12: rho^2 H(softmax(z_t / rho), softmax(z_s / rho)), averaged over the batch.

    Computed as the divergence KL(teacher || student). It differs from the cross-entropy by the teacher's entropy, which
    is constant. So the gradients are the same, and it is zero where the two agree. Logits (N, classes) -> scalar.
    Hinton et al., 2015.
    """
    log_student = F.log_softmax(student_logits / temperature, dim=1)
    log_teacher = F.log_softmax(teacher_logits / temperature, dim=1)
    return temperature**2 * F.kl_div(log_student, log_teacher, reduction='batchmean', log_target=True)


@LOSSES.register_module()
class KDLoss(DistillLoss):
    """:func:`kd_loss` at a fixed ``temperature``."""

    needs = frozenset({'logits'})

    def __init__(self, temperature: float = 4.0):
        super().__init__()
        check_positive(temperature=temperature)
        self.temperature = temperature

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """:func:`kd_loss`, a scalar."""
        return kd_loss(student.logits, teacher.logits, self.temperature)
