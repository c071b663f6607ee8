"""ShuffleNet V2 for 32-pixel images (Ma et al., ECCV 2018), in the form that distillation papers use."""
import torch
from mmpretrain.models.utils import channel_shuffle
from torch import Tensor, nn

from mmcrrcd.registry import MODELS

from .base import StageBackbone


def pointwise(in_channels: int, channels: int) -> list[nn.Module]:
    """1x1 convolution, BN, ReLU."""
    return [nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]


def depthwise(channels: int, stride: int) -> list[nn.Module]:
    """3x3 depthwise convolution, BN."""
    return [nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False), nn.BatchNorm2d(channels)]


class SplitUnit(nn.Module):
    """Three convolutions on the second half of the channels; then both halves are shuffled."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(*pointwise(half, half), *depthwise(half, 1), *pointwise(half, half))

    def pre_activation(self, x: Tensor) -> Tensor:
        """The output before the branch's last ReLU; the other half comes from a ReLU."""
        kept, rest = x.chunk(2, dim=1)
        return channel_shuffle(torch.cat((kept, self.branch[:-1](rest)), dim=1), 2)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        kept, rest = x.chunk(2, dim=1)
        return channel_shuffle(torch.cat((kept, self.branch(rest)), dim=1), 2)


class DownUnit(nn.Module):
    """Two branches of stride 2 on all channels, each half of the output, shuffled."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        half = channels // 2
        self.short = nn.Sequential(*depthwise(in_channels, 2), *pointwise(in_channels, half))
        self.branch = nn.Sequential(*pointwise(in_channels, half), *depthwise(half, 2), *pointwise(half, half))

    def forward(self, x: Tensor) -> Tensor:
        """Takes (N, C, H, W). Gives (N, C2, H / 2, W / 2)."""
        return channel_shuffle(torch.cat((self.short(x), self.branch(x)), dim=1), 2)


@MODELS.register_module()
class ShuffleNetV2CIFAR(StageBackbone):
    """ShuffleNet V2 with a 1x1 stem of 24 channels and three stages of 4, 8 and 4 units; feature maps after ReLU.

    `ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design <https://arxiv.org/abs/1807.11164>`_. The
    feature is the last feature map after a 1x1 convolution, BN and ReLU.

    Args:
        widths: channels of the three stages and of the feature. (116, 232, 464, 1024) is the published "1x".

    Example:
        >>> maps = ShuffleNetV2CIFAR()(torch.zeros(1, 3, 32, 32))
        >>> maps[-1].shape
        torch.Size([1, 1024, 4, 4])
    """

    def __init__(self, widths: tuple[int, int, int, int] = (116, 232, 464, 1024), init_cfg: dict | None = None):
        super().__init__(init_cfg)
        *stages, self.out_channels = widths
        in_channels = 24
        self.stem = nn.Sequential(*pointwise(3, in_channels))
        self.stages = nn.ModuleList()
        for channels, number in zip(stages, (4, 8, 4)):
            units = [DownUnit(in_channels, channels), *(SplitUnit(channels) for _ in range(number - 1))]
            self.stages.append(nn.Sequential(*units))
            in_channels = channels
        self.last = nn.Sequential(*pointwise(in_channels, self.out_channels))
