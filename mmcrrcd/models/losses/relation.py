"""The relation between two samples as a vector, Eq. 1 of the paper."""
from torch import Tensor, nn
from torch.nn import functional as F

from mmcrrcd.registry import LOSSES


@LOSSES.register_module()
class FeatureRelation(nn.Module):
    """F(x, y) = phi(ReLU(phi_i x - phi_j y)), Eq. 1 and the line above it, for all pairs of two sets.

    F^t takes two teacher embeddings, F^{t,s} a teacher's and a student's; each has weights of its own.

    Args:
        anchor_width, other_width: widths of the two embeddings.
        dim: width of the relation vector.
    """

    def __init__(self, anchor_width: int, other_width: int, dim: int = 128):
        super().__init__()
        self.phi_i = nn.Linear(anchor_width, dim)
        self.phi_j = nn.Linear(other_width, dim)
        self.phi = nn.Linear(dim, dim)

    def project(self, anchors: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """phi_i x and -phi_j y, each row once: (A, Dx), (N, Dy) -> (A, dim), (N, dim)."""
        return self.phi_i(anchors), -self.phi_j(others)

    @staticmethod
    def hidden(anchors: Tensor, others: Tensor) -> Tensor:
        """ReLU(phi_i x - phi_j y) of every anchor and every other, :meth:`project`-ed: (A, dim), (N, dim) -> (A, N, dim)."""
        return F.relu(anchors[:, None] + others, inplace=True)

    def forward(self, anchors: Tensor, others: Tensor) -> Tensor:
        """Relation of every anchor to every other: (A, Dx), (N, Dy) -> (A, N, dim)."""
        return self.phi(self.hidden(*self.project(anchors, others)))
