"""VGG with batch norm for 32-pixel images (Simonyan and Zisserman, ICLR 2015)."""
from torch import Tensor, nn
from torch.nn import functional as F

from mmcrrcd.errors import InputError
from mmcrrcd.registry import MODELS

from .base import Conv3x3, StageBackbone, kaiming_init


class PoolLarge(nn.Module):
    """2x2 max-pooling of feature maps of at least 8 pixels; smaller ones stay as they are."""

    def forward(self, x: Tensor) -> Tensor:
        """Pools feature maps that are large enough, and leaves others as they are."""
        return F.max_pool2d(x, 2) if min(x.shape[-2:]) >= 8 else x


@MODELS.register_module()
class VGGCIFAR(StageBackbone):
    """VGG of five groups of 3x3 convolutions, each with BN and ReLU; feature maps after ReLU, before the pooling that follows.

    `Very Deep Convolutional Networks for Large-Scale Image Recognition <https://arxiv.org/abs/1409.1556>`_. The fourth
    pooling takes place for images of 64×64 px or more, so that images of 32×32 px end at 4x4.

    Args:
        depth: 8, 11 or 13.

    Example:
        >>> maps = VGGCIFAR(depth=8)(torch.zeros(1, 3, 32, 32))
        >>> maps[-1].shape
        torch.Size([1, 512, 4, 4])
    """

    widths = (64, 128, 256, 512, 512)
    convs = {8: (1, 1, 1, 1, 1), 11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2)}

    def __init__(self, depth: int, init_cfg: dict | None = None):
        super().__init__(init_cfg)
        if depth not in self.convs:
            raise InputError(f'VGGCIFAR has depth {", ".join(map(str, self.convs))}, got {depth}')
        groups = []
        in_channels = 3
        for channels, number in zip(self.widths, self.convs[depth]):
            layers = []
            for _ in range(number):
                layers += [Conv3x3(in_channels, channels), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)]
                in_channels = channels
            groups.append(layers)
        pools = [nn.MaxPool2d(2), nn.MaxPool2d(2), nn.MaxPool2d(2), PoolLarge()]
        self.stem = nn.Sequential(*groups[0])
        self.stages = nn.ModuleList(nn.Sequential(pool, *layers) for pool, layers in zip(pools, groups[1:]))
        self.out_channels = in_channels
        kaiming_init(self)

    def map_and_pre_activation(self, stage: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor]:
        """A stage's output, and the same before its last ReLU."""
        pre_activation = stage[:-1](x)
        return F.relu(pre_activation), pre_activation
