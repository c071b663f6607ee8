"""What every backbone of this package has in common: it returns its maps, stem first, and then its feature."""
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F


class StageBackbone(BaseModule):
    """A network as a stem, a list of stages and what follows them.

    ``forward`` maps (N, 3, H, W) to ``(*maps, feature)``: the outputs of the stem and of each stage, (N, C, h, w), as the
    distillation literature taps them, and the map that is pooled into the embedding. Where nothing follows the last stage
    the feature *is* the last map. As in mmpretrain, a neck and a head take the last of the tuple.

    Subclasses set ``self.stem``, ``self.stages`` (an ``nn.ModuleList``) and, where something follows the last stage,
    ``self.last``; ``self.out_channels`` is the width of the feature.

    With ``gives_raw`` on, ``forward`` returns ``(*maps, *raws, feature)``: for each stage also its output before its last
    activation.
    """

    out_channels: int
    gives_raw = False

    def __init__(self, init_cfg: dict | list | None = None):
        super().__init__(init_cfg)
        self.last = nn.Identity()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(images)
        if self.gives_raw:
            return self.forward_with_raw(x)
        maps = [x]
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return (*maps, self.last(x))

    def forward_with_raw(self, x: Tensor) -> tuple[Tensor, ...]:
        """``(*maps, *raws, feature)`` from the stem's map on."""
        maps, raws = [x], []
        for stage in self.stages:
            x, raw = self.map_and_raw(stage, x)
            maps.append(x)
            raws.append(raw)
        return (*maps, *raws, self.last(x))

    def map_and_raw(self, stage: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor]:
        """The output of a stage, and what it is before its last ReLU. Here the last block tells, by its method ``raw``."""
        *blocks, last = stage
        for block in blocks:
            x = block(x)
        raw = last.raw(x)
        return F.relu(raw), raw


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
