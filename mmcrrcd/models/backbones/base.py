"""What every backbone of this package has in common: it returns its maps, stem first, and then its feature."""
from mmengine.model import BaseModule
from torch import Tensor, nn


class StageBackbone(BaseModule):
    """A network as a stem, a list of stages and what follows them.

    ``forward`` maps (N, 3, H, W) to ``(*maps, feature)``: the outputs of the stem and of each stage, (N, C, h, w), as the
    distillation literature taps them, and the map that is pooled into the embedding. Where nothing follows the last stage
    the feature *is* the last map. As in mmpretrain, a neck and a head take the last of the tuple.

    Subclasses set ``self.stem``, ``self.stages`` (an ``nn.ModuleList``) and, where something follows the last stage,
    ``self.last``; ``self.out_channels`` is the width of the feature.
    """

    out_channels: int

    def __init__(self, init_cfg: dict | list | None = None):
        super().__init__(init_cfg)
        self.last = nn.Identity()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(images)
        maps = [x]
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return (*maps, self.last(x))


def kaiming_init(module: nn.Module) -> None:
    """He initialisation (fan-out) of convolutions, ones and zeros for norms: the recipe of the CIFAR networks."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode='fan_out', nonlinearity='relu')
            if m.bias is not None:
                nn.init.zeros_(m.bias)
        elif isinstance(m, (nn.BatchNorm2d, nn.GroupNorm)):
            nn.init.ones_(m.weight)
            nn.init.zeros_(m.bias)
