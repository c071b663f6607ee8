"""Distillation from a stronger teacher, DIST (Huang et al., NeurIPS 2022, https://arxiv.org/abs/2205.10536)."""
from torch import Tensor

from mmcrrcd.errors import check_positive
from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import DistillLoss


def pearson(a: Tensor, b: Tensor, eps: float = 1e-8) -> Tensor:
    """Correlation of each of n rows of ``a`` with the same row of ``b``, (n, m) both. It is 0 where a row is constant."""
    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1) + eps)


def dist_loss(student_logits: Tensor, teacher_logits: Tensor, beta: float, gamma: float, temperature: float) -> Tensor:
    """T^2 (beta L_inter + gamma L_intra). Both are means of Pearson's distance, 1 - correlation, of softmax(logits / T).

    L_inter compares the classes of each image, L_intra the images of each class. So only relations are learned: both
    are the same for any positive scale and any shift of the student's rows or columns. Logits (N, classes) -> scalar.
    """
    student, teacher = ((logits / temperature).softmax(1) for logits in (student_logits, teacher_logits))
    inter, intra = 1 - pearson(student, teacher).mean(), 1 - pearson(student.T, teacher.T).mean()
    return temperature**2 * (beta * inter + gamma * intra)


@LOSSES.register_module()
class DISTLoss(DistillLoss):
    """:func:`dist_loss` with the constants that are published for CIFAR-100, beside the classification loss.

    Args:
        beta: weight of the relations between classes.
        gamma: weight of the relations within a class, which need at least 2 images.
        temperature: T.
    """

    needs = frozenset({'logits'})
    smallest_batch = 2                                   # one answer of a class correlates with nothing

    def __init__(self, beta: float = 2.0, gamma: float = 2.0, temperature: float = 4.0):
        super().__init__()
        check_positive(temperature=temperature)
        self.beta, self.gamma, self.temperature = beta, gamma, temperature

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """Scalar; reads the logits."""
        self.check_batch(len(student.logits))
        return dist_loss(student.logits, teacher.logits, self.beta, self.gamma, self.temperature)
