"""IResNet, the residual network of the face recognition field, for aligned faces of 112×112 px."""
from torch import Tensor, nn

from mmcrrcd.errors import InputError
from mmcrrcd.registry import MODELS

from .base import StageBackbone, shortcut, stack


class IBasicBlock(nn.Module):
    """BN, convolution, BN, PReLU, convolution, BN; and the input, through a 1x1 convolution and BN where the shape changes.

    The stride is in the second convolution, and nothing follows the sum.
    """

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.prelu = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample = shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Takes (N, C, H, W). Gives (N, C2, H2, W2)."""
        out = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return out + (x if self.downsample is None else self.downsample(x))


@MODELS.register_module()
class IResNet(StageBackbone):
    """ResNet with the improved block of ArcFace. It has a stem that keeps the size, four stages of stride 2. The feature maps
    of the stages are after BN and sum, without activation.

    `ArcFace: Additive Angular Margin Loss for Deep Face Recognition <https://arxiv.org/abs/1801.07698>`_.

    Images of 112×112 px end at 7x7, of 32 at 2x2, of 16 at 1x1; :class:`EmbeddingNeck` makes the embedding of the last feature
    map.

    Args:
        depth: 18, 50 or 100.

    Example:
        >>> maps = IResNet(depth=18)(torch.zeros(1, 3, 112, 112))
        >>> maps[-1].shape
        torch.Size([1, 512, 7, 7])
    """

    ends_in_relu = False
    blocks = {18: (2, 2, 2, 2), 50: (3, 4, 14, 3), 100: (3, 13, 30, 3)}

    def __init__(self, depth: int, init_cfg: dict | None = None):
        super().__init__(init_cfg)
        if depth not in self.blocks:
            raise InputError(f'IResNet has depth {", ".join(map(str, self.blocks))}, got {depth}')
        in_channels = 64
        self.stem = nn.Sequential(nn.Conv2d(3, in_channels, 3, 1, 1, bias=False), nn.BatchNorm2d(in_channels),
                                  nn.PReLU(in_channels))
        self.stages = nn.ModuleList()
        for channels, number in zip((64, 128, 256, 512), self.blocks[depth]):
            self.stages.append(stack(IBasicBlock, in_channels, channels, number, 2))
            in_channels = channels
        self.out_channels = in_channels
        # As in the published code. Such large weights turn slowly, which the large gradients of scaled cosines need.
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.normal_(m.weight, std=0.1)
