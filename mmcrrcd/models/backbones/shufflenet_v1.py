"""ShuffleNet for 32-pixel images (Zhang et al., CVPR 2018), in the form that distillation papers use."""
import torch
from mmpretrain.models.utils import channel_shuffle
from torch import Tensor, nn
from torch.nn import functional as F

from mmcrrcd.registry import MODELS

from .base import StageBackbone


class ShuffleUnit(nn.Module):
    """Grouped 1x1, shuffle, 3x3 depthwise, grouped 1x1; the input is added, or pooled and concatenated at stride 2."""

    def __init__(self, in_channels: int, channels: int, stride: int, groups: int, in_groups: int):
        super().__init__()
        if stride == 2:
            channels -= in_channels
        hidden = channels // 4
        self.stride, self.in_groups = stride, in_groups
        self.conv1 = nn.Conv2d(in_channels, hidden, 1, groups=in_groups, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3 = nn.Conv2d(hidden, channels, 1, groups=groups, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)

    def pre_activation(self, x: Tensor) -> Tensor:
        """The output before its ReLU."""
        out = channel_shuffle(F.relu(self.bn1(self.conv1(x)), inplace=True), self.in_groups)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        out = self.bn3(self.conv3(out))
        return torch.cat((out, F.avg_pool2d(x, 3, 2, 1)), dim=1) if self.stride == 2 else out + x

    def forward(self, x: Tensor) -> Tensor:
        """Takes (N, C, H, W). Gives (N, C2, H2, W2)."""
        return F.relu(self.pre_activation(x), inplace=True)


@MODELS.register_module()
class ShuffleNetV1CIFAR(StageBackbone):
    """ShuffleNet with a 1x1 stem of 24 channels and three stages of 4, 8 and 4 units; feature maps after ReLU.

    `ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices
    <https://arxiv.org/abs/1707.01083>`_. The first 1x1 convolution of the first unit has no groups.

    Args:
        groups: of the 1x1 convolutions.
        widths: channels of the three stages.

    Example:
        >>> maps = ShuffleNetV1CIFAR()(torch.zeros(1, 3, 32, 32))
        >>> maps[-1].shape
        torch.Size([1, 960, 4, 4])
    """

    def __init__(self, groups: int = 3, widths: tuple[int, int, int] = (240, 480, 960), init_cfg: dict | None = None):
        super().__init__(init_cfg)
        in_channels = 24
        self.stem = nn.Sequential(nn.Conv2d(3, in_channels, 1, bias=False), nn.BatchNorm2d(in_channels),
                                  nn.ReLU(inplace=True))
        self.stages = nn.ModuleList()
        for i, (channels, number) in enumerate(zip(widths, (4, 8, 4))):
            units = []
            for j in range(number):
                units.append(ShuffleUnit(in_channels, channels, stride=2 if j == 0 else 1, groups=groups,
                                         in_groups=1 if i == j == 0 else groups))
                in_channels = channels
            self.stages.append(nn.Sequential(*units))
        self.out_channels = in_channels
