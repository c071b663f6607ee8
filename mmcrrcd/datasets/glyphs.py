"""A data set that needs no download: letters and digits in color, drawn by the package itself."""
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmcrrcd.errors import InputError
from mmcrrcd.registry import DATASETS

from .images import ImageArrays

# Without the characters that look the same in another case, or as another one: c C, o O 0, I l 1, s S 5, ...
CLASSES = 'ABCDEFGHJKLMNPQRTUVWXYZ2346789abdefghnrt'
SIDE = 32
SPLITS = ('train', 'test')

font = cache(ImageFont.load_default)                     # it decodes the font anew on each call


def letter_mask(character: str, size: int, angle: float, x: float, y: float) -> Image.Image:
    """Coverage of one character of Pillow's own font around (``x``, ``y``), turned by ``angle`` degrees: 0 to 255."""
    mask = Image.new('L', (SIDE, SIDE))
    ImageDraw.Draw(mask).text((x, y), character, fill=255, font=font(size), anchor='mm')
    return mask.rotate(angle, Image.Resampling.BICUBIC, center=(x, y))


def draw_image(label: int, rng: np.random.Generator) -> np.ndarray:
    """One image (32, 32, 3) uint8: a shaded ground, pieces of other letters, the letter, a thin line, noise."""
    def color(*, unlike: np.ndarray | None = None) -> np.ndarray:
        while True:
            found = rng.integers(0, 256, 3)
            if unlike is None or abs((found - unlike) @ [0.299, 0.587, 0.114]) > 70:
                return found

    ground = color()
    slope = rng.uniform(-25, 25, (2, 3))
    rows, columns = np.mgrid[-1:1:SIDE * 1j, -1:1:SIDE * 1j][..., None]
    shaded = ground + slope[0] * rows + slope[1] * columns
    image = Image.fromarray(shaded.clip(0, 255).astype(np.uint8))

    middle = rng.uniform(13, 19, 2)
    ink = color(unlike=ground)
    for side in (-1, 1):                                 # neighbors, mostly outside, as in a house number
        x, y = middle[0] + side * rng.uniform(16, 22), middle[1] + rng.uniform(-4, 4)
        other = CLASSES[rng.integers(len(CLASSES))]
        mask = letter_mask(other, int(rng.integers(18, 28)), rng.uniform(-15, 15), x, y)
        image.paste(tuple(color().tolist()), mask=mask)
    mask = letter_mask(CLASSES[label], int(rng.integers(18, 28)), rng.uniform(-15, 15), *middle)
    image.paste(tuple(ink.tolist()), mask=mask)
    ImageDraw.Draw(image).line(rng.uniform(0, SIDE, 4).tolist(), fill=tuple(color().tolist()), width=1)
    return (np.asarray(image) + rng.normal(0, 8, (SIDE, SIDE, 3))).round().clip(0, 255).astype(np.uint8)


@cache                                                   # for the next training of the same process
def draw_split(split: str, num_images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) uint8 and N labels, a function of the arguments; do not write to them."""
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    labels = rng.permutation(np.arange(num_images) % len(CLASSES))
    return np.array([draw_image(label, rng) for label in labels], np.uint8).reshape(-1, SIDE, SIDE, 3), labels


@DATASETS.register_module()
class GlyphArrays(ImageArrays):
    """Letters and digits, 40 classes, 32×32 px: readable as they are, easily confused at 8×8 px.

    The images are a function of the arguments, and the classes differ in count by one at most.

    Args:
        split: 'train' or 'test'; the two share no random number.
        num_images: how many to draw; about 1,000 a second.
        seed: of both splits.
    """

    def __init__(self, split: str = 'train', num_images: int = 8000, seed: int = 0):
        if split not in SPLITS:
            raise InputError(f"split is 'train' or 'test', got {split!r}")
        super().__init__(*draw_split(split, num_images, seed), list(CLASSES), name=f'glyphs ({split})')
