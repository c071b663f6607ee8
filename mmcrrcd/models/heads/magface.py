"""MagFace (Meng et al., CVPR 2021, https://arxiv.org/abs/2103.06627): the margin grows with the embedding's norm."""
import torch
from mmpretrain.structures import DataSample
from torch import Tensor
from torch.nn import functional as F

from mmcrrcd.errors import InputError
from mmcrrcd.registry import MODELS
from mmcrrcd.structures import NetworkOutput

from .arcface import arcface_cosine
from .cosine_head import CosineHead, with_margin


def magface_margin(norm: Tensor, norms: tuple[float, float], margins: tuple[float, float]) -> Tensor:
    """m(a), in radians: straight from ``margins[0]`` at ``norms[0]`` to ``margins[1]`` at ``norms[1]``, for N norms."""
    (l_a, u_a), (l_m, u_m) = norms, margins
    return (u_m - l_m) / (u_a - l_a) * (norm - l_a) + l_m


def magface_regularizer(norm: Tensor, upper: float) -> Tensor:
    """g(a) = 1 / a + a / u_a^2 of N norms, which falls up to the largest norm ``upper``."""
    return 1 / norm + norm / upper**2


@MODELS.register_module()
class MagFaceHead(CosineHead):
    """Eq. 3: :func:`arcface_cosine` with the margin m(a) of each image, and lambda g, averaged over the batch.

    a is the norm of the embedding, brought into the bounds; gradients go through it in both places, and none from outside.

    Args:
        norms: l_a and u_a, bounds of a.
        margins: l_m and u_m in radians; these and lambda are those of the published code.
        regularizer: lambda.
        num_classes, in_channels, scale: see :class:`CosineHead`.
    """

    def __init__(self, num_classes: int, in_channels: int = 512, scale: float = 64.0, norms: tuple[float, float] = (10, 110),
                 margins: tuple[float, float] = (0.45, 0.8), regularizer: float = 35.0, init_cfg: dict | None = None):
        super().__init__(num_classes, in_channels, scale, init_cfg=init_cfg)
        if not 0 < norms[0] < norms[1] or not 0 <= margins[0] <= margins[1] < torch.pi / 2 or regularizer < 0:
            raise InputError('norms go up from a positive one, margins are angles that go up to pi / 2, the regularizer is not '
                             f'negative, got {norms}, {margins} and {regularizer}')
        self.norms, self.margins, self.regularizer = norms, margins, regularizer

    def loss_of(self, output: NetworkOutput, labels: Tensor) -> Tensor:
        """In place of ``loss_module``, which sees no embedding. Labels (N,) -> scalar."""
        norm = output.embedding.norm(dim=1).clamp(*self.norms)
        margin = magface_margin(norm, self.norms, self.margins)
        logits = with_margin(output.logits, labels, lambda cosine: arcface_cosine(cosine, margin), self.scale)
        return F.cross_entropy(logits, labels) + self.regularizer * magface_regularizer(norm, self.norms[1]).mean()

    def loss(self, feats: tuple[Tensor, ...], data_samples: list[DataSample]) -> dict[str, Tensor]:
        """The same for mmpretrain's own training, without a distiller."""
        output = NetworkOutput((), self.pre_logits(feats).float(), self(feats))
        return dict(loss=self.loss_of(output, torch.cat([sample.gt_label for sample in data_samples])))
