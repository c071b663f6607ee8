"""What every backbone of this package has in common: it returns its feature maps, stem first, and then its feature."""
from collections.abc import Callable

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F


class StageBackbone(BaseModule):
    """A network as a stem, a list of stages and what follows them.

    ``forward`` takes images (N, 3, H, W) and gives the feature maps and, last, the feature. These are the outputs of the stem
    and of each stage, (N, C, h, w), as the distillation literature taps them. The feature is the map that is pooled into the
    embedding. Where nothing follows the last stage the feature *is* the last feature map. As in mmpretrain, a neck and a head
    take the last of the tuple.

    Subclasses set ``self.stem``, ``self.stages`` (an ``nn.ModuleList``) and, where something follows the last stage,
    ``self.last``. ``self.out_channels`` is the width of the feature.

    With ``gives_pre_activations`` on, ``forward`` returns ``(*maps, *pre_activations, feature)``: for each stage also its
    output before its last activation.
    """

    out_channels: int
    gives_pre_activations = False
    ends_in_relu = True                                  # does each stage?

    def __init__(self, init_cfg: dict | list | None = None):
        super().__init__(init_cfg)
        self.last = nn.Identity()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of stem and stages, pre-activations where they were asked for, and the feature at the end."""
        x = self.stem(images)
        if self.gives_pre_activations:
            return self.forward_with_pre_activations(x)
        maps = [x]
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return (*maps, self.last(x))

    def forward_with_pre_activations(self, x: Tensor) -> tuple[Tensor, ...]:
        """``(*maps, *pre_activations, feature)`` from the stem's feature map on."""
        maps, pre_activations = [x], []
        for stage in self.stages:
            x, pre_activation = self.map_and_pre_activation(stage, x)
            maps.append(x)
            pre_activations.append(pre_activation)
        return (*maps, *pre_activations, self.last(x))

    def map_and_pre_activation(self, stage: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output of a stage, and what it is before its last ReLU, where it has one. Here the last block tells, by its
        method ``pre_activation``.
        """
        if not self.ends_in_relu:
            return (stage(x), ) * 2
        *blocks, last = stage
        for block in blocks:
            x = block(x)
        pre_activation = last.pre_activation(x)
        return F.relu(pre_activation), pre_activation


class Center(torch.autograd.Function):
    """The middle of 3x3 weights (O, I, 3, 3), a matrix of O x I. Its gradient has the layout of the weights. That of plain
    indexing is in another one where they are channels-last. Each step would copy it, which takes a third of a step at 8×8 px.
    """

    @staticmethod
    def forward(ctx, weight: Tensor) -> Tensor:
        """The middle of each 3×3 kernel."""
        ctx.save_for_backward(weight)
        return weight[:, :, 1, 1]

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        """The gradient, with zeros around it."""
        whole = torch.zeros_like(ctx.saved_tensors[0])
        whole[:, :, 1, 1] = grad
        return whole


class Conv3x3(nn.Conv2d):
    """3x3 convolution with stride 1 and padding 1. On maps of one pixel eight of its nine columns meet only padding. The ninth
    is a linear layer, so these are the same numbers for a ninth of the work. A step of VGG8 at 8x8 px takes half the time.

    It also spares these maps the bfloat16 weight gradient of torch 2.14 on CPUs, which is wrong there.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """A convolution, or a linear layer where a feature map is one pixel."""
        if x.shape[-2:] != (1, 1):
            return super().forward(x)
        return F.linear(x.flatten(1), Center.apply(self.weight), self.bias)[:, :, None, None]


def stack(block: Callable[[int, int, int], nn.Module], in_channels: int, channels: int, number: int,
          stride: int) -> nn.Sequential:
    """A stage of blocks ``block(in_channels, channels, stride)``, the first of which changes channels and size."""
    others = (block(channels, channels, 1) for _ in range(number - 1))
    return nn.Sequential(block(in_channels, channels, stride), *others)


def shortcut(in_channels: int, channels: int, stride: int) -> nn.Sequential | None:
    """Of a residual block: a 1x1 convolution and BN where the shape changes, else None for the input itself."""
    if stride == 1 and in_channels == channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))


def kaiming_init(module: nn.Module) -> None:
    """He initialization (fan-out) of convolutions, ones and zeros for norms: the recipe of the CIFAR networks."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode='fan_out', nonlinearity='relu')
            if m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, (nn.BatchNorm2d, nn.GroupNorm)):
            nn.init.ones_(m.weight)
            nn.init.zeros_(m.bias)
