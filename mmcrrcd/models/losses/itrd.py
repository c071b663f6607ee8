"""Information theoretic representation distillation, ITRD (Miles et al., BMVC 2022, https://arxiv.org/abs/2112.00459)."""
from torch import Tensor
from torch.nn import functional as F

from mmcrrcd.errors import check_positive
from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import MapLoss


def standardize(x: Tensor) -> Tensor:
    """Embeddings (b, d) with mean 0 and unbiased deviation 1 of each number over the batch; 0 where it is the same in all."""
    deviation = x.var(0).clamp(min=1e-12).sqrt()
    return (x - x.mean(0)) / deviation


def correlation_loss(student: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    """log2 of the sum over d of ``|c_d - 1|^(2 alpha)``, c_d the mean over the batch of the product of standardized numbers.

    As the deviations are unbiased, c_d is at most 1 - 1 / b, and the logarithm is finite. Embeddings (b, d) both -> scalar.
    """
    correlation = (standardize(student) * standardize(teacher)).mean(0)
    return (correlation - 1).abs().pow(2 * alpha).sum().log2()


def mutual_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Sum of G_s^2 - G_st^2, the Gram matrices of unit rows and their product G_s * G_t by elements, each over its trace.

    It is the difference of two entropies of order 2, before their logarithms: of student and teacher together, and of the
    student. Embeddings of b x d_s and b x d_t -> scalar.
    """
    gram_s, gram_t = (unit @ unit.T for unit in (F.normalize(student), F.normalize(teacher)))
    joint = gram_s * gram_t
    return ((gram_s / gram_s.trace()).square() - (joint / joint.trace()).square()).sum()


@LOSSES.register_module()
class ITRDLoss(MapLoss):
    """``correlation`` x :func:`correlation_loss` + ``mutual`` x :func:`mutual_loss` of the embeddings, beside classification.

    For the correlation the student's embedding passes a learned linear layer to the teacher's width. So it does for the
    Gram matrix where the widths differ, as in the published code. The defaults are published for wrn_40_2 -> wrn_16_2.

    Args:
        correlation: weight of the first part.
        mutual: weight of the second part.
        alpha: order of the first part's entropy.
    """

    smallest_batch = 2                                   # one image correlates with nothing

    def __init__(self, correlation: float = 2.0, mutual: float = 1.0, alpha: float = 1.01):
        super().__init__()
        check_positive(alpha=alpha)
        self.correlation, self.mutual, self.alpha = correlation, mutual, alpha

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """Scalar; reads the embeddings."""
        self.check_batch(len(student.embedding))
        mapped = self.map(student.embedding)
        relating = student.embedding if student.embedding.shape == teacher.embedding.shape else mapped
        return (self.correlation * correlation_loss(mapped, teacher.embedding, self.alpha)
                + self.mutual * mutual_loss(relating, teacher.embedding))
