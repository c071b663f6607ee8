"""DenseNet-BC for 32-pixel images (Huang et al., CVPR 2017, section 4.2)."""
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcrrcd.errors import InputError
from mmcrrcd.registry import MODELS

from .base import StageBackbone, kaiming_init


class DenseLayer(nn.Module):
    """BN, ReLU and a 1x1 convolution, then the same with a 3x3 one; the output is appended to the input."""

    def __init__(self, in_channels: int, growth: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Takes (N, C, H, W). Gives (N, C + growth, H, W)."""
        new = self.conv1(F.relu(self.bn1(x), inplace=True))
        return torch.cat([x, self.conv2(F.relu(self.bn2(new), inplace=True))], dim=1)


class Transition(nn.Module):
    """BN, ReLU, a 1x1 convolution, and the mean of each 2x2 pixels."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Takes (N, C, H, W). Gives (N, C2, H / 2, W / 2)."""
        return self.shrink(F.relu(self.bn1(x), inplace=True))

    def shrink(self, active: Tensor) -> Tensor:
        """The output, from what BN and ReLU make of the input."""
        return F.avg_pool2d(self.conv1(active), 2)


class DenseStage(nn.Module):
    """A transition that halves the ``in_channels``, unless the stage is the first, and ``depth`` dense layers."""

    def __init__(self, in_channels: int, depth: int, growth: int, first: bool):
        super().__init__()
        self.transition = nn.Identity()
        if not first:
            self.transition = Transition(in_channels, in_channels // 2)
            in_channels //= 2
        self.layers = nn.Sequential(*(DenseLayer(in_channels + i * growth, growth) for i in range(depth)))
        self.out_channels = in_channels + depth * growth

    def forward(self, x: Tensor) -> Tensor:
        """Takes (N, C, H, W). Gives (N, C2, H2, W2)."""
        return self.layers(self.transition(x))


@MODELS.register_module()
class DenseNetCIFAR(StageBackbone):
    """DenseNet-BC of ``depth`` = 6n + 4 with three stages of n dense layers; feature maps before the BN and ReLU that follow.

    `Densely Connected Convolutional Networks <https://arxiv.org/abs/1608.06993>`_. The feature is the last feature map after BN
    and ReLU.

    Args:
        depth: 40, 100, 190, ...
        growth: channels that each layer adds.

    Example:
        >>> maps = DenseNetCIFAR(depth=100, growth=12)(torch.zeros(1, 3, 32, 32))
        >>> maps[-1].shape
        torch.Size([1, 342, 8, 8])
    """

    def __init__(self, depth: int, growth: int = 12, init_cfg: dict | None = None):
        super().__init__(init_cfg)
        if depth < 10 or (depth - 4) % 6:
            raise InputError(f'DenseNetCIFAR has depth 6n + 4 (40, 100, 190, ...), got {depth}')
        in_channels = 2 * growth
        self.stem = nn.Conv2d(3, in_channels, 3, 1, 1, bias=False)
        self.stages = nn.ModuleList()
        for i in range(3):
            self.stages.append(DenseStage(in_channels, (depth - 4) // 6, growth, first=i == 0))
            in_channels = self.stages[-1].out_channels
        self.last = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True))
        self.out_channels = in_channels
        kaiming_init(self)

    def forward_with_pre_activations(self, x: Tensor) -> tuple[Tensor, ...]:
        """The BN after a map is the first layer of the next transition, and of ``last``; it is computed once."""
        maps, pre_activations = [x], []
        for stage in self.stages:
            if isinstance(stage.transition, Transition):
                pre_activations.append(stage.transition.bn1(x))
                x = stage.transition.shrink(F.relu(pre_activations[-1]))
            x = stage.layers(x)
            maps.append(x)
        norm, _ = self.last
        pre_activations.append(norm(x))
        return (*maps, *pre_activations, F.relu(pre_activations[-1]))
