"""The critic that scores a teacher relation against a cross-resolution relation, Eq. 10 of the paper."""
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from mmcrrcd.errors import InputError
from mmcrrcd.registry import LOSSES

from .relation import FeatureRelation


class Projected(NamedTuple):
    """All relations of A anchors with N others that a critic's h is to see, before they are made.

    ``anchors`` (A, dim) and ``others`` (N, dim) are those of :meth:`FeatureRelation.project`; ``weight`` (dim, dim) and
    ``bias`` (dim,) are phi and h, two linear maps in a row, as one.
    """
    anchors: Tensor
    others: Tensor
    weight: Tensor
    bias: Tensor


@LOSSES.register_module()
class RelationCritic(nn.Module):
    """h1 and h2 of Eq. 10: a linear map and l2 normalization each; their dot product is the score.

    Args:
        dim: width of the relations, and of what is compared.
        center: 'anchor' subtracts, before l2, the mean over an anchor's relations. A relation carries its anchor in it,
            so without this critic and relation can shift all scores of an anchor together. None leaves it.
    """

    def __init__(self, dim: int = 128, center: str | None = 'anchor'):
        super().__init__()
        if center not in ('anchor', None):
            raise InputError(f"center is 'anchor' or None, got {center!r}")
        self.h1 = nn.Linear(dim, dim)
        self.h2 = nn.Linear(dim, dim)
        self.center = center

    def teacher(self, relation: FeatureRelation, anchors: Tensor, others: Tensor) -> Projected:
        """For h1(F^t(anchor, other)): (A, D), (N, D)."""
        return self._project(self.h1, relation, anchors, others)

    def cross(self, relation: FeatureRelation, anchors: Tensor, others: Tensor) -> Projected:
        """For h2(F^{t,s}(anchor, other)): (A, Dt), (N, Ds)."""
        return self._project(self.h2, relation, anchors, others)

    @staticmethod
    def _project(h: nn.Linear, relation: FeatureRelation, anchors: Tensor, others: Tensor) -> Projected:
        weight, bias = h.weight @ relation.phi.weight, F.linear(relation.phi.bias, h.weight, h.bias)
        return Projected(*relation.project(anchors, others), weight, bias)

    def compared(self, projected: Projected) -> tuple[Tensor, Tensor]:
        """h of each relation, centered where that is wanted, (A, N, dim), and its length (A, N): what l2 divides by."""
        vectors = F.linear(FeatureRelation.hidden(projected.anchors, projected.others), projected.weight, projected.bias)
        if self.center == 'anchor':
            vectors = vectors - vectors.mean(1, keepdim=True)
        return vectors, vectors.norm(dim=-1).clamp(min=1e-12)

    def forward(self, teacher_relations: Tensor, cross_relations: Tensor) -> Tensor:
        """Scores of relation vectors as they are, without centering: (..., dim), (..., dim) -> (...), in [-1, 1]."""
        return (F.normalize(self.h1(teacher_relations), dim=-1) * F.normalize(self.h2(cross_relations), dim=-1)).sum(-1)
