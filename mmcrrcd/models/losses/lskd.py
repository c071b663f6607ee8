"""Logit standardization (Sun et al., CVPR 2024, https://arxiv.org/abs/2403.01427)."""
import torch
from torch import Tensor

from mmcrrcd.errors import check_positive
from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import DistillLoss
from .kd import kd_loss


def z_score(logits: Tensor) -> Tensor:
    """Algorithm 1: (v - mean) / (1e-7 + std) over the classes of each image, std unbiased. (N, classes) -> the same.

    Equal logits of all classes become zeros. The clamp keeps their gradient finite, which the root's is not at 0.
    """
    deviation = logits.var(1, keepdim=True).clamp(min=torch.finfo(logits.dtype).tiny).sqrt()
    return (logits - logits.mean(1, keepdim=True)) / (1e-7 + deviation)


def lskd_loss(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Algorithm 2: T^2 KL(softmax(z_t / T) || softmax(z_s / T)) of standardized logits z, averaged over the batch.

    The student learns the shape of the teacher's logits, not their range. Logits (N, classes) -> scalar.
    """
    return kd_loss(z_score(student_logits), z_score(teacher_logits), temperature)


@LOSSES.register_module()
class LSKDLoss(DistillLoss):
    """:func:`lskd_loss` at a fixed ``temperature``. The published recipe is 0.1 x classification + 9 x this loss.

    Args:
        temperature: T; published for CIFAR-100: 2, but 3 for vgg13 -> vgg8, and 4 with a weight of 12 for
            resnet110 -> resnet20.
    """

    needs = frozenset({'logits'})

    def __init__(self, temperature: float = 2.0):
        super().__init__()
        check_positive(temperature=temperature)
        self.temperature = temperature

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """Scalar; reads the logits."""
        return lskd_loss(student.logits, teacher.logits, self.temperature)
