"""What a small camera adds to its images beside the loss of pixels: blur, noise, and JPEG's compression."""
import math

import torch
from torch import Tensor
from torch.nn import functional as F

from mmcrrcd.errors import InputError, is_number

# The tables of the JPEG standard's Annex K, which libjpeg and Pillow scale by the quality.
LUMA = torch.tensor([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80,
    62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98,
    112, 100, 103, 99]).view(8, 8)
CHROMA = torch.full((8, 8), 99)
CHROMA[:4, :4] = torch.tensor([[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]])
RGB_TO_YCBCR = torch.tensor([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
NAMES = ('blur', 'noise', 'jpeg')


def check_camera(blur: float, noise: float, jpeg: int | None) -> None:
    """One clear line for settings that cannot work."""
    for name, value in (('blur', blur), ('noise', noise)):
        if not is_number(value) or not 0 <= value <= 255:
            raise InputError(f'{name} is a number from 0 to 255, got {value!r}')
    if jpeg is not None and (not is_number(jpeg, whole=True) or not 1 <= jpeg <= 100):
        raise InputError(f'jpeg is a quality from 1 to 100, or None, got {jpeg!r}')


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Images (N, C, H, W) in float; borders are repeated."""
    n, c, height, width = images.shape
    radius = math.ceil(3 * sigma)
    weights = torch.exp(-torch.arange(-radius, radius + 1, device=images.device).float()**2 / (2 * sigma**2))
    weights = weights / weights.sum()
    planes = F.pad(images.reshape(n * c, 1, height, width), [radius] * 4, mode='replicate')
    planes = F.conv2d(F.conv2d(planes, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))
    return planes.view(n, c, height, width)


def dct_matrix(device=None) -> Tensor:
    """(8, 8) D, so that D x D^T is the DCT of a block x."""
    k, i = torch.arange(8.0, device=device)[:, None], torch.arange(8.0, device=device)
    rows = torch.cos((2 * i + 1) * k * math.pi / 16) / 2
    rows[0] /= math.sqrt(2)
    return rows


def blocks(planes: Tensor) -> Tensor:
    """Planes (N, H, W) as blocks of 8 x 8. Borders are repeated up to a multiple of 8. Gives (N, H / 8, W / 8, 8, 8)."""
    n, height, width = planes.shape
    planes = F.pad(planes[:, None], [0, -width % 8, 0, -height % 8], mode='replicate')[:, 0]
    return planes.view(n, planes.shape[1] // 8, 8, planes.shape[2] // 8, 8).transpose(2, 3)


def compress(planes: Tensor, table: Tensor, quality: int) -> Tensor:
    """Planes (N, H, W), 0 to 255, after JPEG's rounding of their DCT."""
    n, height, width = planes.shape
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = ((table * scale + 50) // 100).clamp(1, 255).to(planes)
    basis = dct_matrix(planes.device)
    coefficients = basis @ blocks(planes - 128) @ basis.T
    found = basis.T @ ((coefficients / steps).round() * steps) @ basis + 128
    found = found.transpose(2, 3).reshape(n, found.shape[1] * 8, found.shape[2] * 8)
    return found[:, :height, :width].round().clamp(0, 255)


def jpeg_compress(images: Tensor, quality: int) -> Tensor:
    """Images (N, C, H, W) of whole numbers from 0 to 255, as a JPEG file would give them back.

    Three channels are RGB; of BGR images flip them. Color is kept at half the pixels (4:2:0), as cameras do. It runs where the
    images are, in one piece for a batch, and is within a few gray levels of libjpeg.
    """
    n, c, height, width = images.shape
    if c != 3:
        return compress(images.reshape(n * c, height, width), LUMA.to(images.device), quality).view(n, c, height, width)
    matrix = RGB_TO_YCBCR.to(images)
    luma, *chroma = torch.einsum('kc,nchw->knhw', matrix, images).round()
    chroma = torch.stack(chroma, 1) + 128
    chroma = F.pad(chroma, [0, width % 2, 0, height % 2], mode='replicate')
    half = F.avg_pool2d(chroma, 2).round().flatten(0, 1)
    luma, half = compress(luma, LUMA.to(images.device), quality), compress(half, CHROMA.to(images.device), quality)
    chroma = F.interpolate(half.view(n, 2, *half.shape[1:]), scale_factor=2, mode='bilinear', align_corners=False)
    ycbcr = torch.cat([luma[:, None], chroma[:, :, :height, :width] - 128], 1)
    return torch.einsum('ck,nkhw->nchw', torch.linalg.inv(matrix), ycbcr)


def degrade(images: Tensor, blur: float = 0.0, noise: float = 0.0, jpeg: int | None = None, seed: int | None = 0) -> Tensor:
    """Small images (N, C, H, W) in float, 0 to 255, as a camera would have stored them: lens, sensor, file.

    Args:
        blur: standard deviation of a Gaussian, in pixels of the small image.
        noise: standard deviation of the sensor's noise, in gray levels of 256.
        jpeg: quality, 1 to 100; None for no compression.
        seed: of the noise, the same for each call; None for torch's own generators.
    """
    if blur:
        images = gaussian_blur(images, blur)
    if noise:
        generator = None if seed is None else torch.Generator(images.device).manual_seed(seed)
        images = images + noise * torch.randn(images.shape, generator=generator, device=images.device)
    if jpeg is not None:
        images = jpeg_compress(images.round().clamp(0, 255), jpeg)
    return images
