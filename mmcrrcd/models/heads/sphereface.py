"""SphereFace (Liu et al., CVPR 2017, https://arxiv.org/abs/1704.08063): the angle multiplied."""
import torch
from torch import Tensor, nn

from mmcrrcd.errors import InputError
from mmcrrcd.models.losses.stages import at_least_float32
from mmcrrcd.registry import MODELS


def sphereface_cosine(cosine: Tensor, multiplier: int) -> Tensor:
    """psi of Eq. 7: (-1)^k cos(m theta) - 2k for theta in [k pi / m, (k + 1) pi / m], k = 0 ... m - 1. (N,) -> (N,).

    cos(m theta) is a polynomial of cos(theta) (Chebyshev's), so gradients are finite everywhere. k is constant between the
    bounds, where psi is continuous, and is found without gradients.
    """
    cosine = at_least_float32(cosine).clamp(-1, 1)
    before, multiple = torch.ones_like(cosine), cosine
    for _ in range(multiplier - 1):
        before, multiple = multiple, 2 * cosine * multiple - before
    k = (multiplier * cosine.detach().acos() / torch.pi).floor().clamp(max=multiplier - 1)
    return (1 - 2 * (k % 2)) * multiple - 2 * k


@MODELS.register_module()
class SphereFaceMargin(nn.Module):
    """:func:`sphereface_cosine` with ``multiplier`` m, a whole number.

    The paper normalizes the classes only and has the norm of the embedding in place of a scale. In :class:`CosineHead` both
    are normalized, as in all that came after.
    """

    def __init__(self, multiplier: int = 4):
        super().__init__()
        if not isinstance(multiplier, int) or multiplier < 1:
            raise InputError(f"SphereFace's multiplier is a whole number from 1 on, got {multiplier}")
        self.multiplier = multiplier

    def forward(self, cosine: Tensor) -> Tensor:
        """Cosines with the margin."""
        return sphereface_cosine(cosine, self.multiplier)
