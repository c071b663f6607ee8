"""The one reader of image files: data sets, face tests and predictions see the same pixels."""
import os
import stat
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mmcrrcd.errors import InputError, first_line

READER = 'reader 2'                                      # part of each cache's fingerprint: raise it when pixels change
FORMATS = ('BMP', 'GIF', 'JPEG', 'PNG', 'PPM', 'TIFF', 'WEBP')          # others start programs (EPS) or are rarely tested
SUFFIXES = {'.bmp', '.gif', '.jpeg', '.jpg', '.pbm', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp'}      # in folders
MAX_PIXELS = 2 ** 26
warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)     # refused below, in one line


class ImageError(InputError):
    """A file that cannot be read as an image: ``reason`` says why."""

    def __init__(self, name: object, reason: str):
        super().__init__(f'{name} cannot be read as an image ({reason})')
        self.name, self.reason = name, reason

    def __reduce__(self):                                # it comes from processes that decode
        return type(self), (self.name, self.reason)


def open_regular(path: str | Path) -> BytesIO:
    """What a file holds. Raises OSError where it is no regular file: opening a pipe would wait for ever."""
    with open(os.open(path, os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0) | getattr(os, 'O_BINARY', 0)), 'rb') as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError('it is no regular file')
        return BytesIO(file.read())


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB of 8 bits, upright; gray becomes three equal channels, 16 bits their upper 8, transparency is dropped."""
    kind = image.format
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith('I;16') or image.mode == 'I' and kind in ('PNG', 'PPM'):    # as Pillow keeps 16 bits of gray
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ('I', 'F'):
        raise ValueError('pixels of more than 16 bits')
    return image.convert('RGB')


def read_image(source: str | Path | bytes, name: object = None, side: int | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a file or of an encoded image.

    The image is turned upright as its EXIF says. Only :data:`FORMATS` are tried, whatever the name ends in, and images of more
    than :data:`MAX_PIXELS` are refused before they are decoded. A small file can hold a huge image.

    Args:
        name: what an error calls it; the path where it is not given.
        side: the image is resized to (side, side) as a whole, by Pillow's antialiased bilinear filter, unless it has that size.

    Raises:
        ImageError: it is no image, a damaged one, or too large; one line.
    """
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else open_regular(source), formats=FORMATS) as opened:
            width, height = opened.size
            if width * height > MAX_PIXELS:
                raise ValueError(f'{width} x {height} pixels are more than {MAX_PIXELS:,}')
            image = to_rgb(opened)
    except Exception as error:                           # Pillow raises many kinds for damaged files
        reason = getattr(error, 'strerror', None) or first_line(error)
        if isinstance(error, Image.UnidentifiedImageError):             # Pillow's words name an object in memory
            reason = 'it is empty' if _is_empty(source) else f'it is none of {", ".join(FORMATS)}'
        raise ImageError(source if name is None else name, reason) from error
    if side is not None and image.size != (side, side):
        image = image.resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _is_empty(source: str | Path | bytes) -> bool:
    return not (source if isinstance(source, bytes) else os.path.getsize(source))
