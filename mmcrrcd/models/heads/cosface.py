"""CosFace (Wang et al., CVPR 2018, https://arxiv.org/abs/1801.09414): a margin taken off the cosine."""
from torch import Tensor, nn

from mmcrrcd.errors import InputError
from mmcrrcd.registry import MODELS


def cosface_cosine(cosine: Tensor, margin: float) -> Tensor:
    """Eq. 4: cos theta - m, of N cosines."""
    return cosine - margin


@MODELS.register_module()
class CosFaceMargin(nn.Module):
    """:func:`cosface_cosine` at a fixed ``margin``."""

    def __init__(self, margin: float = 0.35):
        super().__init__()
        if margin < 0:
            raise InputError(f"CosFace's margin is not negative, got {margin}")
        self.margin = margin

    def forward(self, cosine: Tensor) -> Tensor:
        """Cosines with the margin."""
        return cosface_cosine(cosine, self.margin)
