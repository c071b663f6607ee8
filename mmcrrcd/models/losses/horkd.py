"""Hybrid order relational knowledge distillation: single embeddings, pairs and triplets of them follow the teacher's."""
from torch import Tensor
from torch.nn import functional as F

from mmcrrcd.errors import InputError
from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import MapLoss
from .rkd import rkd_angle_loss, rkd_distance_loss


def horkd_losses(student: Tensor, regressed: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The losses of first order, mean squared error, of second, distances of pairs, and of third, angles of triplets.

    ``student`` (b, D_s), ``regressed`` (b, D_t) the same brought to the teacher's width, ``teacher`` (b, D_t) -> three scalars.
    """
    return F.mse_loss(regressed, teacher), rkd_distance_loss(student, teacher), rkd_angle_loss(student, teacher)


@LOSSES.register_module()
class HORKDLoss(MapLoss):
    """After Ge et al., Look One and More: Distilling Hybrid Order Relational Knowledge for Cross-Resolution Image
    Recognition, AAAI 2020 (https://arxiv.org/abs/2409.05384).

    From the paper's abstract: the student, at low resolution, is supervised with multiple losses that preserve the
    similarities in relational structures of various orders. An assistant stream stands between teacher and student. The
    paper's equations were not at hand, so these are choices of this package. The order of a relation is its number of
    samples (some count from zero). Pairs and triplets are compared as in RKD, with its proportion of 1 to 2 as weights. A
    learned linear map of the student's embedding stands for the assistant, which a loss of two outputs has not.

    Args:
        first, second, third: weights of the orders.

    Shown in the log: ``first_order``, ``second_order`` and ``third_order``, without weights.
    """

    def __init__(self, first: float = 1.0, second: float = 1.0, third: float = 2.0):
        super().__init__()
        if min(first, second, third) < 0:
            raise InputError(f'the weights of the three orders are not negative, got {first}, {second}, {third}')
        self.order_weights = dict(first_order=first, second_order=second, third_order=third)

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """The weighted sum of :func:`horkd_losses`, a scalar."""
        orders = horkd_losses(student.embedding, self.map(student.embedding), teacher.embedding)
        self.log_vars = {name: order.detach() for name, order in zip(self.order_weights, orders)}
        return sum(weight * order for weight, order in zip(self.order_weights.values(), orders))
