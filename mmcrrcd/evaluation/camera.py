"""Which downsampling makes large images look most like those of a small camera."""
import itertools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmcrrcd.datasets import downsample
from mmcrrcd.datasets.transforms.camera import NAMES, RGB_TO_YCBCR, blocks, dct_matrix

SAMPLINGS = (dict(interpolation='bilinear', antialias=True), dict(interpolation='bilinear', antialias=False),
             dict(interpolation='bicubic', antialias=True), dict(interpolation='area'), dict(interpolation='nearest'))
CHANCE = 1.05                                            # distances closer than this factor say nothing
BLURS, NOISES, QUALITIES = (0.0, 0.5, 1.0), (0.0, 4.0, 10.0), (None, 90, 70, 40)


class Match(NamedTuple):
    """How far images made by the settings ``how`` of :func:`downsample` are from the camera's."""
    distance: float
    how: dict


def statistics(images: Tensor) -> Tensor:
    """How strong each frequency of images (N, 3, h, w) uint8 is: F numbers an image. Blur, aliasing, noise and JPEG change that
    each in its own way.

    Of the 8 x 8 DCT of brightness and both colors (of smaller images the borders are repeated). Half of them are the logarithm
    of the mean size of each coefficient over an image's blocks. The others say how near the coefficients are to zero, as JPEG's
    rounding leaves them.
    """
    ycbcr = torch.einsum('kc,nchw->nkhw', RGB_TO_YCBCR, images.float())
    n = len(images)
    basis, parts = dct_matrix(), []
    for shift in (0, 4):                                 # on JPEG's grid of blocks, and off it
        planes = ycbcr[..., shift:, shift:] if min(ycbcr.shape[2:]) >= 12 else ycbcr
        size = (basis @ blocks(planes.flatten(0, 1)) @ basis.T).abs()
        size = size.view(n, 3, -1, 64)[..., 1:]          # not the mean color
        parts += [(0.5 + size.mean(2)).log(), (0.5 + size).log().mean(2)]
    return torch.cat(parts, 1).flatten(1)


def distance(ours: Tensor, theirs: Tensor) -> float:
    """Of two sets of statistics, F columns each: root mean square of the differences of their means, in standard deviations."""
    spread = theirs.std(0).clamp(min=1e-3)
    return ((ours.mean(0) - theirs.mean(0)) / spread).square().mean().sqrt().item()


def candidates() -> list[dict]:
    """All settings that are compared."""
    return [how | {name: value for name, value in zip(('blur', 'noise', 'jpeg'), values) if value}
            for how in SAMPLINGS for values in itertools.product(BLURS, NOISES, QUALITIES)]


def match_camera(large: Tensor, small: np.ndarray, resolution: int | tuple[int, int]) -> list[Match]:
    """All settings, the nearest first; of those that are as near up to chance the one with the fewest is put before them.

    Args:
        large: (N, 3, H, W) uint8, images such as those of the training.
        small: (M, h, w, 3) uint8, images of the camera at ``resolution``, of any such things; not of the same ones.
    """
    theirs = statistics(torch.from_numpy(small).permute(0, 3, 1, 2))
    found = [Match(distance(statistics(downsample(large, resolution, **how)), theirs), how) for how in candidates()]
    found.sort(key=lambda match: match.distance)
    as_near = [match for match in found if match.distance <= CHANCE * found[0].distance]
    best = min(as_near, key=lambda match: (len(match.how.keys() & set(NAMES)), match.distance))
    return [best, *(match for match in found if match is not best)]
