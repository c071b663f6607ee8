"""ResNet for 32-pixel images (He et al., CVPR 2016, section 4.2), and its four-times-wider form."""
from torch import Tensor, nn
from torch.nn import functional as F

from mmcrrcd.errors import InputError
from mmcrrcd.registry import MODELS

from .base import StageBackbone, kaiming_init, shortcut, stack


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, a 1x1 convolution where the shape changes."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = shortcut(in_channels, channels, stride)

    def pre_activation(self, x: Tensor) -> Tensor:
        """The output before its ReLU."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.bn2(self.conv2(x)).add_(shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """Takes (N, C, H, W). Gives (N, C2, H2, W2)."""
        return F.relu(self.pre_activation(x), inplace=True)


@MODELS.register_module()
class ResNetCIFAR(StageBackbone):
    """ResNet of ``depth`` = 6n + 2 with three stages of n basic blocks; feature maps after ReLU.

    Args:
        depth: 8, 14, 20, 32, 44, 56, 110, ...
        widths: channels of the stem and the three stages. The default is the published network. Its "x4" in resnet8x4 and
            resnet32x4 is (32, 64, 128, 256).

    Example:
        >>> maps = ResNetCIFAR(depth=20)(torch.zeros(1, 3, 32, 32))
        >>> maps[-1].shape
        torch.Size([1, 64, 8, 8])
    """

    def __init__(self, depth: int, widths: tuple[int, int, int, int] = (16, 16, 32, 64), init_cfg: dict | None = None):
        super().__init__(init_cfg)
        if depth < 8 or (depth - 2) % 6:
            raise InputError(f'ResNetCIFAR has depth 6n + 2 (8, 14, 20, 32, ...), got {depth}')
        stem, *stages = widths
        self.stem = nn.Sequential(nn.Conv2d(3, stem, 3, 1, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU(inplace=True))
        self.stages = nn.ModuleList()
        in_channels = stem
        for i, channels in enumerate(stages):
            self.stages.append(stack(BasicBlock, in_channels, channels, (depth - 2) // 6, 2 if i else 1))
            in_channels = channels
        self.out_channels = in_channels
        kaiming_init(self)
