"""Pairs of faces in ten folds: LFW's ``pairs.txt`` (Huang et al., 2007) and the ``.bin`` files of InsightFace."""
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmcrrcd.errors import InputError
from mmcrrcd.files import check_there, inside, read_lines

from .decoded import decode_blocks, decode_encoded, decode_files
from .images import _Array, _ArrayUnpickler

FOLDS = 10


@dataclass(frozen=True)
class VerificationPairs:
    """P pairs of M images; are the two of one person?

    Args:
        images: (M, H, W, 3) uint8 RGB, each once.
        left, right: (P,) rows of ``images``.
        same: (P,) bool.
        fold: (P,) from 0; the people of a fold of LFW are in no other one.
        name: of the set.
    """

    images: np.ndarray
    left: np.ndarray
    right: np.ndarray
    same: np.ndarray
    fold: np.ndarray
    name: str

    def __len__(self) -> int:
        return len(self.same)


class Pair(NamedTuple):
    """Two images (name of the person, number of the image)."""

    left: tuple[str, int]
    right: tuple[str, int]
    same: bool
    fold: int


def read_pairs(path: Path) -> tuple[int, list[Pair]]:
    """Number of folds and the pairs of a file in the form of LFW's ``pairs.txt``.

    Its first line says folds and pairs n. Each fold has n lines ``name i j`` of one person. Then come n lines ``name i name j``
    of two.

    Raises:
        InputError: a line of another form, another count; one line.
    """
    lines = [line.split() for line in read_lines(path)]
    while lines and not lines[-1]:
        lines.pop()
    if not lines or len(lines[0]) != 2 or not all(word.isdecimal() and int(word) for word in lines[0]):
        raise InputError(f'{path}, line 1: expected the numbers of folds and of pairs, such as "10 300", got '
                         f'{" ".join(lines[0])[:60] if lines else ""!r}')
    folds, number = map(int, lines[0])
    if len(lines) != 1 + 2 * folds * number:
        raise InputError(f'{path}: {folds} folds of {number} + {number} pairs are {2 * folds * number} lines, '
                         f'got {len(lines) - 1}')
    pairs = []
    for i, words in enumerate(lines[1:]):
        fold, same = i // (2 * number), i // number % 2 == 0
        expected = 'name i j' if same else 'name i name j'
        if len(words) != (3 if same else 4) or not (words[1].isdecimal() and words[-1].isdecimal()):
            raise InputError(f'{path}, line {i + 2}: expected "{expected}", got {" ".join(words)[:60]!r}')
        pairs.append(Pair((words[0], int(words[1])), (words[-2] if not same else words[0], int(words[-1])), same, fold))
    return folds, pairs


def find_image(folder: Path, name: str, number: int) -> Path:
    """``<folder>/<name>/<name>_0001.jpg``, or ``.png``, as some tools align LFW into."""
    path = inside(folder, name, 'the list of pairs') / f'{name}_{number:04d}.jpg'
    return path if path.exists() or not path.with_suffix('.png').exists() else path.with_suffix('.png')


def lfw_pairs(folder: str, pairs_file: str, image_size: int = 112, folds: Sequence[int] | None = None) -> VerificationPairs:
    """LFW's pairs: 6,000 of 7,701 images in 10 folds of 300 + 300.

    Args:
        folder: ``<name>/<name>_0001.jpg`` in it, aligned and cropped.
        pairs_file: path of ``pairs.txt``.
        image_size: side; images of another size are resized as a whole, bilinear with antialiasing.
        folds: only these, counted from 0, where a network has been trained on the people of the others.

    Raises:
        InputError: a line of another form, an image that is missing or cannot be read; one line.
    """
    path = Path(pairs_file)
    number, pairs = read_pairs(path)
    if folds is not None:
        if not folds or not set(folds) <= set(range(number)):
            raise InputError(f'{path} has the folds 0 to {number - 1}, got {list(folds)}')
        pairs = [pair for pair in pairs if pair.fold in folds]
    rows = {}
    for pair in pairs:
        for key in (pair.left, pair.right):
            rows.setdefault(key, len(rows))
    files = [find_image(Path(folder), *key) for key in rows]
    check_there(files, str(path))
    images = np.concatenate(list(decode_blocks(files, partial(decode_files, side=image_size), f'{path.name}, {folder}')))
    left, right = (np.array([rows[key] for key in keys]) for keys in zip(*(pair[:2] for pair in pairs)))
    return VerificationPairs(images, left, right, np.array([pair.same for pair in pairs]),
                             np.array([pair.fold for pair in pairs]), f'LFW ({folder})')


class _BinUnpickler(_ArrayUnpickler):
    """Plain values and arrays of uint8, and what Python 3 writes for bytes under the protocols of Python 2."""

    known = _ArrayUnpickler.known | {('_codecs', 'encode'): lambda text, _: text.encode('latin1')}


def read_bin(path: Path) -> tuple[list[bytes], np.ndarray]:
    """Encoded images, two for each pair, and same (P,) bool of a ``.bin`` file, loaded so that it cannot run code."""
    if not path.is_file():
        raise FileNotFoundError(f'there is no file {path}')
    try:
        with open(path, 'rb') as file:
            encoded, same = _BinUnpickler(file, encoding='latin1').load()
        encoded = [item.value.tobytes() if isinstance(item, _Array) else
                   item.encode('latin1') if isinstance(item, str) else bytes(memoryview(item)) for item in encoded]
    except Exception as error:                           # a damaged pickle can raise nearly anything
        raise InputError(f'{path} is not a readable verification set ({error!r})'.replace('\n', ' ')) from error
    if not isinstance(same, list) or not all(value in (0, 1) for value in same):
        raise InputError(f'{path}: expected a list of True and False behind the images')
    if len(encoded) != 2 * len(same) or len(same) < FOLDS:
        raise InputError(f'{path}: expected two images for each of at least {FOLDS} pairs, got {len(encoded)} images and '
                         f'{len(same)} pairs')
    return encoded, np.array(same, bool)


def bin_pairs(path: str, image_size: int = 112) -> VerificationPairs:
    """A verification set of InsightFace, such as ``lfw.bin`` and ``agedb_30.bin`` of 6,000 pairs, or ``cfp_fp.bin`` of 7,000.

    The file is a pickle of (encoded images, two for each pair; same or not); the folds are ten consecutive equal parts.

    Args:
        image_size: side; images of another size than that (the files hold 112) are resized, bilinear with antialiasing.

    Raises:
        InputError: the file is damaged, holds other things, or an image of it cannot be read; one line.
    """
    encoded, same = read_bin(Path(path))
    rows = {}
    both = np.array([rows.setdefault(item, len(rows)) for item in encoded])
    _, first = np.unique(both, return_index=True)
    images = np.concatenate(list(decode_blocks(
        list(zip(rows, first)), partial(decode_encoded, side=image_size, name=f'{path}: image'), path)))
    sizes = [len(part) for part in np.array_split(same, FOLDS)]
    return VerificationPairs(images, both[::2], both[1::2], same, np.repeat(np.arange(FOLDS), sizes), Path(path).stem)
