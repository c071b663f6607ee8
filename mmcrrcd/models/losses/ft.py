"""Factor transfer (Kim et al., NeurIPS 2018, https://arxiv.org/abs/1802.04977)."""
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcrrcd.errors import InputError, check_positive
from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import DistillLoss
from .stages import at_least_float32, image_ratio, same_size


def factor_loss(student_factor: Tensor, teacher_factor: Tensor) -> Tensor:
    """Mean absolute difference of the factors' mean squares over the channels, each of unit length over the pixels.

    As in RepDistiller, whose weight of 200 belongs to it; the paper normalizes the whole factor, without the mean of squares.
    The larger factor is averaged to the size of the smaller. (N, C, H, W), (N, C', h, w) -> scalar.
    """
    student, teacher = (F.normalize(x.square().mean(1).flatten(1)) for x in same_size(student_factor, teacher_factor))
    return (student - teacher).abs().mean()


def layers(kind: type[nn.Module], widths: list[int], norm: bool) -> nn.Sequential:
    """3x3 (transposed) convolutions from width to width, each with BN where wanted, and a leaky ReLU."""
    modules = []
    for before, after in zip(widths, widths[1:]):
        modules += [kind(before, after, 3, 1, 1), *[nn.BatchNorm2d(after)] * norm, nn.LeakyReLU(0.1, inplace=True)]
    return nn.Sequential(*modules)


@LOSSES.register_module()
class FTLoss(DistillLoss):
    """First the paraphraser learns to reconstruct the teacher's last map from a factor; then the student's factor follows.

    For ``paraphraser_epochs`` epochs this is the mean squared error of the reconstruction, which trains no student. From then
    on the paraphraser is frozen, and this is :func:`factor_loss` of the translator's and the paraphraser's factors, times the
    root of :func:`image_ratio`. So much larger are the numbers of a unit vector of a smaller image. As published: a weight of
    ``[[0, 1], [30, 1], [30, 200]]`` and ``cls_weight=[[0, 0], [30, 0], [30, 1]]``.

    Args:
        paraphraser_epochs: length of the first stage.
        rate: channels of the factors over those of the teacher's last feature map, k in the paper.
    """

    needs = student_needs = frozenset({'feature_maps'})
    staged = True

    def __init__(self, paraphraser_epochs: int = 30, rate: float = 0.5):
        super().__init__()
        check_positive(rate=rate)
        if paraphraser_epochs:
            check_positive(whole=True, paraphraser_epochs=paraphraser_epochs)
        self.paraphraser_epochs, self.rate = paraphraser_epochs, rate
        self.student_from = paraphraser_epochs
        self.epoch = 0

    def build(self, student: NetworkOutput, teacher: NetworkOutput) -> None:
        """Make paraphraser and translator."""
        (width, *pixels), (width_t, *pixels_t) = student.feature_maps[-1].shape[1:], teacher.feature_maps[-1].shape[1:]
        if [1, 1] in (pixels, pixels_t):
            raise InputError('FTLoss compares how factors spread over pixels: the last feature maps need more than one, '
                             f'got {pixels} for the student, {pixels_t} for the teacher')
        factor = int(width_t * self.rate)
        if not factor:
            raise InputError(f'rate={self.rate} of the {width_t} channels of the teacher\'s last feature map leaves no factor')
        self.encoder = layers(nn.Conv2d, [width_t, width_t, factor, factor], norm=False)
        self.decoder = layers(nn.ConvTranspose2d, [factor, factor, width_t, width_t], norm=False)
        self.translator = layers(nn.Conv2d, [width, width, factor, factor], norm=True)

    def set_epoch(self, epoch: int) -> None:
        """The stage is that of this epoch."""
        self.epoch = epoch

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """The paraphraser's reconstruction in its stage, then :func:`factor_loss`; a scalar."""
        map_t = at_least_float32(teacher.feature_maps[-1])
        if self.epoch < self.paraphraser_epochs:
            return F.mse_loss(self.decoder(self.encoder(map_t)), map_t)
        with torch.no_grad():
            factor_t = self.encoder(map_t)
        loss = factor_loss(self.translator(at_least_float32(student.feature_maps[-1])), factor_t)
        return loss * math.sqrt(image_ratio(student, teacher))
