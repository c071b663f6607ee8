"""Wide residual networks for 32-pixel images (Zagoruyko and Komodakis, BMVC 2016)."""
from torch import Tensor, nn
from torch.nn import functional as F

from mmcrrcd.errors import InputError
from mmcrrcd.registry import MODELS

from .base import StageBackbone, kaiming_init, stack


class PreActivationBlock(nn.Module):
    """BN, ReLU and convolution twice, and a shortcut: the input itself, or where the number of channels changes a 1x1
    convolution of the activated input.
    """

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.shortcut = None
        if in_channels != channels:
            self.shortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Takes (N, C, H, W). Gives (N, C2, H2, W2)."""
        return self.convolve(x, F.relu(self.bn1(x), inplace=True))

    def convolve(self, x: Tensor, active: Tensor) -> Tensor:
        """The output, from the input and what BN and ReLU make of it."""
        out = self.conv2(F.relu(self.bn2(self.conv1(active)), inplace=True))
        return out + (x if self.shortcut is None else self.shortcut(active))


@MODELS.register_module()
class WRNCIFAR(StageBackbone):
    """Wide ResNet of ``depth`` = 6n + 4 with three stages of n blocks; feature maps before the BN and ReLU that follow them.

    `Wide Residual Networks <https://arxiv.org/abs/1605.07146>`_. The feature is the last feature map after BN and ReLU.

    Args:
        depth: 10, 16, 22, 28, 40, ...
        width: the stages have 16, 32 and 64 channels times this; 2 in WRN-40-2.

    Example:
        >>> maps = WRNCIFAR(depth=16, width=2)(torch.zeros(1, 3, 32, 32))
        >>> maps[-1].shape
        torch.Size([1, 128, 8, 8])
    """

    def __init__(self, depth: int, width: int = 1, init_cfg: dict | None = None):
        super().__init__(init_cfg)
        if depth < 10 or (depth - 4) % 6:
            raise InputError(f'WRNCIFAR has depth 6n + 4 (10, 16, 22, 28, 40, ...), got {depth}')
        in_channels = 16
        self.stem = nn.Conv2d(3, in_channels, 3, 1, 1, bias=False)
        self.stages = nn.ModuleList()
        for i, channels in enumerate((16 * width, 32 * width, 64 * width)):
            self.stages.append(stack(PreActivationBlock, in_channels, channels, (depth - 4) // 6, 2 if i else 1))
            in_channels = channels
        self.last = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True))
        self.out_channels = in_channels
        kaiming_init(self)

    def forward_with_pre_activations(self, x: Tensor) -> tuple[Tensor, ...]:
        """The BN after a map is the first layer of the next stage, and of ``last``; it is computed once."""
        maps, pre_activations = [x], []
        for stage in self.stages:
            first, *others = stage
            pre_activations.append(first.bn1(x))
            x = first.convolve(x, F.relu(pre_activations[-1]))
            for block in others:
                x = block(x)
            maps.append(x)
        norm, _ = self.last
        pre_activations.append(norm(x))
        return (*maps, *pre_activations[1:], F.relu(pre_activations[-1]))              # the first is the stem's
