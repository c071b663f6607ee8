"""The critic that scores a teacher relation against a cross-resolution relation, Eq. 10 of the paper."""
from torch import Tensor, nn
from torch.nn import functional as F

from mmcrrcd.errors import InputError
from mmcrrcd.registry import LOSSES

from .relation import FeatureRelation


@LOSSES.register_module()
class RelationCritic(nn.Module):
    """h1 and h2 of Eq. 10: a linear map and l2 normalisation each; their dot product is the score.

    Args:
        dim: width of the relations, and of what is compared.
        centre: 'anchor' subtracts, before l2, the mean over an anchor's relations. A relation carries its anchor in it,
            so without this critic and relation can shift all scores of an anchor together. None leaves it.
    """

    def __init__(self, dim: int = 128, centre: str | None = 'anchor'):
        super().__init__()
        if centre not in ('anchor', None):
            raise InputError(f"centre is 'anchor' or None, got {centre!r}")
        self.h1 = nn.Linear(dim, dim)
        self.h2 = nn.Linear(dim, dim)
        self.centre = centre

    def teacher(self, relation: FeatureRelation, anchors: Tensor, others: Tensor) -> Tensor:
        """h1(F^t(anchor, other)), unit vectors: (A, D), (N, D) -> (A, N, dim)."""
        return self._unit(self.h1, relation, anchors, others)

    def cross(self, relation: FeatureRelation, anchors: Tensor, others: Tensor) -> Tensor:
        """h2(F^{t,s}(anchor, other)), unit vectors: (A, Dt), (N, Ds) -> (A, N, dim)."""
        return self._unit(self.h2, relation, anchors, others)

    def _unit(self, h: nn.Linear, relation: FeatureRelation, anchors: Tensor, others: Tensor) -> Tensor:
        # phi and h are two linear maps in a row: their product is applied, once.
        weight = h.weight @ relation.phi.weight
        bias = F.linear(relation.phi.bias, h.weight, h.bias)
        vectors = F.linear(relation.hidden(anchors, others), weight, bias)
        if self.centre == 'anchor':
            vectors = vectors - vectors.mean(1, keepdim=True)
        return F.normalize(vectors, dim=-1)

    def forward(self, teacher_relations: Tensor, cross_relations: Tensor) -> Tensor:
        """Scores of relation vectors as they are, without centring: (..., dim), (..., dim) -> (...), in [-1, 1]."""
        return (F.normalize(self.h1(teacher_relations), dim=-1) * F.normalize(self.h2(cross_relations), dim=-1)).sum(-1)
