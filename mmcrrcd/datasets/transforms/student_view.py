"""What a student sees of an image of any size."""
import math
from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.registry import DefaultScope

from mmcrrcd.errors import InputError
from mmcrrcd.registry import TRANSFORMS

from .camera import check_camera
from .resolution_pair import check_resolution, downsample, sides

Size = int | tuple[int, int]


def told(size: Size) -> str:
    """A size in words, height first: 8×8 px."""
    return '{}×{} px'.format(*sides(size))


def distance(image: tuple[int, int], size: Size) -> float:
    """How far the areas of two sizes are apart: the logarithm of their ratio."""
    return abs(math.log(math.prod(sides(size)) / math.prod(image)))


@TRANSFORMS.register_module()
class StudentView(BaseTransform):
    """Makes of ``img`` what a student of low resolution sees of it, for images from files and from small cameras.

    A natively small image, one whose area is nearer to ``resolution`` than to ``image_size``, is resized straight to
    ``resolution``. If it has that size, it is seen as it is. Any other goes through the transforms of the training's tests
    first. A crop that is right for photographs would cut the border off a small image, and blur the rest.

    Required key: ``img`` (H, W, 3) or (H, W) uint8. Modified keys: ``img`` (h, w, C) uint8, ``img_shape``.

    Args:
        resolution: side in pixels, or height and width, of what the student sees.
        image_size: the same of the training's images.
        interpolation, antialias: see :func:`downsample`.
        upsample: scale the small image up to ``image_size``, as in training.
        gray: the student has learned from gray images: make one of the BGR image first.
        large: transforms for images that are not natively small.
        blur, noise, jpeg: see :func:`downsample`, for images that are not natively small: others come from a camera already.

    Example:
        >>> view = StudentView(resolution=8, image_size=32)
        >>> view(dict(img=np.zeros((8, 8, 3), np.uint8)))['img'].shape
        (8, 8, 3)
    """

    def __init__(self, resolution: Size, image_size: Size, interpolation: str = 'bilinear', antialias: bool = True,
                 upsample: bool = False, gray: bool = False, large: Sequence[dict] = (), blur: float = 0.0,
                 noise: float = 0.0, jpeg: int | None = None):
        for each in (resolution, image_size):
            check_resolution(each, interpolation)
        check_camera(blur, noise, jpeg)
        self.resolution, self.image_size = sides(resolution), sides(image_size)
        self.how = dict(interpolation=interpolation, antialias=antialias)
        self.camera = {key: value for key, value in dict(blur=blur, noise=noise, jpeg=jpeg).items() if value}
        self.upsample, self.gray, self.steps = upsample, gray, list(large)
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            self.large = [TRANSFORMS.build(dict(step)) for step in large]

    def transform(self, results: dict) -> dict:
        """Replaces 'img' by what the student sees of it."""
        img = results['img']
        if img.dtype != np.uint8:
            raise InputError(f'StudentView takes uint8 images, before any normalization; got {img.dtype}')
        size = img.shape[:2]
        if self.gray and img.ndim == 3 and img.shape[2] == 3:
            img = np.rint(img @ np.array([0.114, 0.587, 0.299])).astype(np.uint8)
        natively_small = self.natively_small(size)
        if not natively_small:
            for step in self.large:
                results = step(results | dict(img=img, img_shape=img.shape[:2]))
                img = results['img']
        img = img if img.ndim == 3 else img[..., None]
        seen = torch.from_numpy(np.ascontiguousarray(img)).permute(2, 0, 1)[None]
        seen = downsample(seen, self.resolution, **self.how, **({} if natively_small else self.camera))
        if self.upsample:
            seen = downsample(seen, self.image_size, **self.how)
        results['img'] = np.ascontiguousarray(seen[0].permute(1, 2, 0).numpy())
        results['img_shape'] = results['img'].shape[:2]
        return results

    def natively_small(self, size: tuple[int, int]) -> bool:
        """Is the area of an image nearer to ``resolution`` than to ``image_size``?"""
        return distance(size, self.resolution) < distance(size, self.image_size)

    @property
    def seen(self) -> tuple[int, int]:
        """Height and width of what the student sees."""
        return self.image_size if self.upsample else self.resolution

    def __repr__(self) -> str:
        interpolation = self.how['interpolation']
        antialias = ', antialiased' if self.how['antialias'] and interpolation in ('bilinear', 'bicubic') else ''
        upsampled = f', then to {told(self.image_size)}' if self.upsample else ''
        camera = ''.join(f', {key} {value}' for key, value in self.camera.items())
        return f'{told(self.resolution)}{upsampled} ({interpolation}{antialias}{camera})'
