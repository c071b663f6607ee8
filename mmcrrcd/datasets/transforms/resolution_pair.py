"""From one image, the same content at a second, lower resolution."""
import zlib

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from torch import Tensor
from torch.nn import functional as F

from mmcrrcd.errors import InputError, is_number
from mmcrrcd.registry import TRANSFORMS

from .camera import check_camera, degrade

SETTINGS = ('resolution', 'interpolation', 'antialias', 'upsample', 'blur', 'noise', 'jpeg')     # of downsample
MOST = 2**14                                             # pixels of a side
MODES = {'bilinear': 'bilinear', 'bicubic': 'bicubic', 'area': 'area', 'nearest': 'nearest-exact'}


def downsample(images: Tensor, resolution: int | tuple[int, int], interpolation: str = 'bilinear',
               antialias: bool = True, upsample: bool = False, blur: float = 0.0, noise: float = 0.0,
               jpeg: int | None = None, seed: int | None = 0) -> Tensor:
    """Images as a small sensor would have stored them: resampled, and rounded to uint8 again.

    Args:
        images: (N, C, H, W) uint8.
        resolution: height and width in pixels; one number for square images.
        interpolation: 'bilinear', 'bicubic', 'area' or 'nearest'.
        antialias: widen the bilinear or bicubic kernel by the factor, as Pillow does. Without it most source pixels of a
            strong downsampling are never looked at.
        upsample: bring the small image back to (H, W), with the same interpolation, for networks of a fixed size.
        blur, noise, jpeg, seed: what the camera adds, see :func:`degrade`.

    Returns:
        (N, C, h, w) uint8, or (N, C, H, W) where upsampled.
    """
    size = sides(resolution)

    def resample(x: Tensor, to: tuple[int, int]) -> Tensor:
        options = dict(antialias=antialias, align_corners=False) if interpolation in ('bilinear', 'bicubic') else {}
        return F.interpolate(x, to, mode=MODES[interpolation], **options)

    small = degrade(resample(images.float(), size), blur, noise, jpeg, seed).round_().clamp_(0, 255)
    if upsample:
        small = resample(small, tuple(images.shape[-2:])).round_().clamp_(0, 255)
    return small.to(torch.uint8)


def sides(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of a size; one number is both."""
    return (size, size) if isinstance(size, int) else tuple(size)


def check_size(size: int | tuple[int, int], name: str) -> None:
    """Raises InputError where ``size`` is neither a number of pixels nor a height and a width."""
    both = size if isinstance(size, (tuple, list)) else (size, size)
    if len(both) != 2 or any(not is_number(side, whole=True) or side < 1 for side in both):
        raise InputError(f'{name} is a number of pixels (or a height and a width), got {size!r}')
    if max(both) > MOST:
        raise InputError(f'{name} is at most {MOST} pixels, got {size!r}')


def check_resolution(resolution: int | tuple[int, int] | None, interpolation: str) -> None:
    """One clear line for settings that cannot work."""
    if resolution is not None:
        check_size(resolution, 'resolution')
    if interpolation not in MODES:
        raise InputError(f'interpolation is one of {", ".join(MODES)}, got {interpolation!r}')


@TRANSFORMS.register_module()
class ResolutionPair(BaseTransform):
    """Adds ``img_low`` to a sample: its ``img`` at ``resolution``. Comes after crops and flips, so the two show the same.

    Pack both with ``PackInputs(algorithm_keys=('img_low', ))``. The arguments are those of :func:`downsample`. The noise is a
    function of the image, so it repeats where crops do.

    Required key: ``img`` (H, W, C), or (H, W) if gray, uint8. Added key: ``img_low`` (C, h, w) uint8 tensor.
    """

    def __init__(self, resolution: int | tuple[int, int], interpolation: str = 'bilinear', antialias: bool = True,
                 upsample: bool = False, blur: float = 0.0, noise: float = 0.0, jpeg: int | None = None):
        check_resolution(resolution, interpolation)
        check_camera(blur, noise, jpeg)
        self.settings = dict(resolution=resolution, interpolation=interpolation, antialias=antialias, upsample=upsample)
        self.settings |= {key: value for key, value in dict(blur=blur, noise=noise, jpeg=jpeg).items() if value}

    def transform(self, results: dict) -> dict:
        """Adds 'img_low', the downsampled image, uint8 (C, h, w), to the results."""
        img = np.ascontiguousarray(results['img'])
        if img.dtype != np.uint8:
            raise InputError(f'ResolutionPair takes uint8 images, before any normalization; got {img.dtype}')
        img = img if img.ndim == 3 else img[..., None]
        seed = zlib.crc32(img.data) if self.settings.get('noise') else 0
        image = torch.from_numpy(img).permute(2, 0, 1)[None]
        results['img_low'] = downsample(image, **self.settings, seed=seed)[0]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}({", ".join(f"{k}={v!r}" for k, v in self.settings.items())})'
