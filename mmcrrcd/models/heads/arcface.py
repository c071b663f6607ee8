"""ArcFace (Deng et al., CVPR 2019, https://arxiv.org/abs/1801.07698): a margin added to the angle."""
import torch
from torch import Tensor, nn

from mmcrrcd.errors import InputError
from mmcrrcd.models.losses.stages import at_least_float32
from mmcrrcd.registry import MODELS


def arcface_cosine(cosine: Tensor, margin: Tensor | float) -> Tensor:
    """Eq. 3: cos(theta + m) of the angles whose N cosines are given; ``margin`` in radians, one for all or one for each.

    From theta = pi - m on, where cos(theta + m) would rise again, it is cos theta - m sin m. This rule of published code keeps
    it falling over all angles. Their other one, "easy margin", leaves out the margin from pi / 2 on.

    By cos theta cos m - sin theta sin m, without an arc cosine. The gradient of sin theta is infinite at 0 and pi, so sin theta
    stops at 1e-3. A cosine that rounding has put beyond 1 gives finite values and gradients as well.
    """
    cosine = at_least_float32(cosine)
    margin = torch.as_tensor(margin, dtype=cosine.dtype)
    sine = (1 - cosine.square()).clamp(min=1e-6).sqrt()
    added = cosine * margin.cos() - sine * margin.sin()
    return torch.where(cosine > -margin.cos(), added, cosine - margin * margin.sin())


@MODELS.register_module()
class ArcFaceMargin(nn.Module):
    """:func:`arcface_cosine` at a fixed ``margin`` in radians."""

    def __init__(self, margin: float = 0.5):
        super().__init__()
        if not 0 <= margin < torch.pi / 2:
            raise InputError(f"ArcFace's margin is an angle in [0, pi / 2), got {margin}")
        self.margin = margin

    def forward(self, cosine: Tensor) -> Tensor:
        """Cosines with the margin."""
        return arcface_cosine(cosine, self.margin)
