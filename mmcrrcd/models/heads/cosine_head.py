"""A classifier by the angle between embedding and class, with the margin in its loss."""
import torch
from mmpretrain.models import ClsHead, CrossEntropyLoss
from torch import Tensor, nn
from torch.nn import functional as F

from mmcrrcd.errors import InputError
from mmcrrcd.models.losses.stages import at_least_float32
from mmcrrcd.registry import MODELS


def with_margin(logits: Tensor, labels: Tensor, margin, scale: float) -> Tensor:
    """``logits`` = scale x cosines (N, classes), the cosine of each image's own class replaced by ``margin`` of it.

    ``margin`` turns N cosines into N others. Only these N numbers are worked on; the result is a copy.
    """
    place = labels[:, None]
    target = margin(logits.gather(1, place).squeeze(1) / scale)
    return logits.scatter(1, place, scale * target[:, None])


class MarginSoftmax(nn.Module):
    """Cross-entropy of :func:`with_margin`: logits without margin, (N, classes), and N labels, int64 -> scalar."""

    def __init__(self, margin: nn.Module, scale: float):
        super().__init__()
        self.margin, self.scale = margin, scale
        self.cross_entropy = CrossEntropyLoss()

    def forward(self, logits: Tensor, labels: Tensor, **kwargs) -> Tensor:
        """Cross-entropy of scaled cosines (N, classes), the right one with the margin."""
        return self.cross_entropy(with_margin(at_least_float32(logits), labels, self.margin, self.scale), labels, **kwargs)


@MODELS.register_module()
class CosineHead(ClsHead):
    """Logits are ``scale`` x the cosine between the embedding and the vector of each class, in float32 under autocast, too.

    They are without margin: these are what distillation compares, what accuracy is counted from, and what a test sees. The
    margin is in ``loss_module(logits, labels)`` only. mmpretrain's ``ArcFaceClsHead`` has it in its forward pass instead,
    and plain cross-entropy for its ``loss_module``. A pass gives it logits either with the margin or without, where
    :class:`Distiller` needs both. It also takes the arc cosine, whose gradient is infinite at cosines of -1 and 1.

    Args:
        num_classes: identities of the training data.
        in_channels: width of the embedding.
        scale: s of the papers.
        margin: config of :class:`ArcFaceMargin`, :class:`CosFaceMargin` or :class:`SphereFaceMargin`; None for softmax over
            scaled cosines. MagFace is :class:`MagFaceHead`, softmax with nothing normalized mmpretrain's ``LinearClsHead``.

    Shapes: a tuple whose last is the embedding, N x in_channels -> (N, num_classes).

    Example:
        >>> head = CosineHead(num_classes=10575, margin=dict(type='mmcrrcd.ArcFaceMargin'))
    """

    def __init__(self, num_classes: int, in_channels: int = 512, scale: float = 64.0, margin: dict | nn.Module | None = None,
                 init_cfg: dict | None = None):
        super().__init__(init_cfg=init_cfg)
        if num_classes < 1 or scale <= 0:
            raise InputError(f'num_classes and scale are positive, got {num_classes} and {scale}')
        self.num_classes, self.in_channels, self.scale = num_classes, in_channels, scale
        self.weight = nn.Parameter(torch.empty(num_classes, in_channels).normal_(std=0.01))
        if margin is not None:
            self.loss_module = MarginSoftmax(MODELS.build(margin) if isinstance(margin, dict) else margin, scale)

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Scaled cosines (N, classes) of embeddings and class vectors, in float32."""
        embedding = self.pre_logits(feats)
        with torch.autocast(embedding.device.type, enabled=False):
            return self.scale * F.linear(F.normalize(at_least_float32(embedding)), F.normalize(at_least_float32(self.weight)))
