"""MobileNetV2 for 32-pixel images (Sandler et al., CVPR 2018), in the form that distillation papers use."""
from torch import Tensor, nn

from mmcrrcd.registry import MODELS

from .base import StageBackbone, kaiming_init


def conv_bn(in_channels: int, channels: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution that keeps the size (but for its stride), and BN."""
    return [nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(channels)]


class InvertedResidual(nn.Module):
    """1x1 to more channels, 3x3 depthwise, 1x1 back without ReLU; and the input where the shape stays the same."""

    def __init__(self, in_channels: int, channels: int, stride: int, expansion: int):
        super().__init__()
        hidden = in_channels * expansion
        self.residual = stride == 1 and in_channels == channels
        self.conv = nn.Sequential(
            *conv_bn(in_channels, hidden), nn.ReLU(inplace=True),
            *conv_bn(hidden, hidden, 3, stride, groups=hidden), nn.ReLU(inplace=True),
            *conv_bn(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Takes (N, C, H, W). Gives (N, C2, H2, W2)."""
        return x + self.conv(x) if self.residual else self.conv(x)


@MODELS.register_module()
class MobileNetV2CIFAR(StageBackbone):
    """MobileNetV2 with a stem of stride 2 and four stages; the feature maps of the stages are after BN, without ReLU.

    `MobileNetV2: Inverted Residuals and Linear Bottlenecks <https://arxiv.org/abs/1801.04381>`_. Images of 32×32 px
    end at 2x2; the feature is the last feature map after a 1x1 convolution, BN and ReLU.

    Args:
        width: factor of all numbers of channels; of the feature's 1280 only where it is above 1.
        expansion: channels inside a block over channels of its input. The first block has 1.

    Example:
        >>> maps = MobileNetV2CIFAR(width=0.5)(torch.zeros(1, 3, 32, 32))
        >>> maps[-1].shape
        torch.Size([1, 1280, 2, 2])
    """

    ends_in_relu = False
    # for each stage, its groups of blocks: (channels, blocks, stride of the first)
    groups = (((16, 1, 1), (24, 2, 1)), ((32, 3, 2),), ((64, 4, 2), (96, 3, 1)), ((160, 3, 2), (320, 1, 1)))

    def __init__(self, width: float = 0.5, expansion: int = 6, init_cfg: dict | None = None):
        super().__init__(init_cfg)
        in_channels = int(32 * width)
        self.stem = nn.Sequential(*conv_bn(3, in_channels, 3, 2), nn.ReLU(inplace=True))
        self.stages = nn.ModuleList()
        for i, groups in enumerate(self.groups):
            blocks = []
            for channels, number, stride in groups:
                for j in range(number):
                    blocks.append(InvertedResidual(in_channels, int(channels * width), stride if j == 0 else 1,
                                                   expansion if i > 0 or blocks else 1))
                    in_channels = int(channels * width)
            self.stages.append(nn.Sequential(*blocks))
        self.out_channels = int(1280 * max(width, 1))
        self.last = nn.Sequential(*conv_bn(in_channels, self.out_channels), nn.ReLU(inplace=True))
        kaiming_init(self)
