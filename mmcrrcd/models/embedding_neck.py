"""From the last feature map of a backbone to the embedding of a face."""
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmcrrcd.errors import InputError
from mmcrrcd.registry import MODELS


@MODELS.register_module()
class EmbeddingNeck(BaseModule):
    """BN, dropout, all places of the map through one linear layer, BN: the usual end of face networks.

    `ArcFace <https://arxiv.org/abs/1801.07698>`_ (Deng et al., CVPR 2019, section 3.1). It stands where mmpretrain's
    classifiers have their pooling, so a :class:`NetworkOutput`'s embedding is its output. The factor of the last BN stays 1, as
    in the published networks. Batches of one image cannot train it.

    Args:
        in_channels: of the last feature map.
        map_size: height and width of the last feature map; 7 for images of 112×112 px and a backbone that halves four times.
        embed_dim: width of the embedding.
        dropout: probability.

    Shapes: a tuple whose last is (N, in_channels, map_size, map_size) -> a tuple of one, N x embed_dim.

    Raises:
        InputError: feature maps of another size, from images of another size than was meant.
    """

    def __init__(self, in_channels: int = 512, map_size: int = 7, embed_dim: int = 512, dropout: float = 0.0,
                 init_cfg: dict | None = None):
        super().__init__(init_cfg)
        self.map_size = map_size
        self.norm = nn.BatchNorm2d(in_channels)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(in_channels * map_size**2, embed_dim)
        self.last_norm = nn.BatchNorm1d(embed_dim)
        self.last_norm.weight.requires_grad_(False)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor]:
        """The embedding (N, D) of the last feature map."""
        x = maps[-1]
        if x.shape[2:] != (self.map_size, self.map_size):
            raise InputError(f'the neck is for feature maps of {self.map_size} x {self.map_size}, the backbone gives '
                             f'{x.shape[2]} x {x.shape[3]}: set map_size, or the resolution of the images')
        return (self.last_norm(self.linear(self.dropout(self.norm(x)).flatten(1))),)
