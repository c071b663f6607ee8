"""Face images in one folder for each person: CASIA-WebFace, MS1M, VGGFace2, LFW as people have them."""
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from mmcrrcd.errors import InputError
from mmcrrcd.files import read_lines
from mmcrrcd.registry import DATASETS

from .decoded import decode_files, fingerprint, fingerprint_of_images, load_decoded
from .images import ImageArrays
from .read_image import SUFFIXES
from .verification_sets import read_pairs


def mark_of(stat: os.stat_result) -> str:
    """Size and date of a file."""
    return f'{stat.st_size} {stat.st_mtime_ns}'


def list_images(folder: Path) -> list[tuple[str, str]]:
    """Names of the images right in ``folder``, by name, each with size and date: what tells that a file is another now."""
    with os.scandir(folder) as entries:
        return sorted((entry.name, mark_of(entry.stat())) for entry in entries
                      if Path(entry.name).suffix.lower() in SUFFIXES and not entry.name.startswith('.'))


def list_folders(folder: Path) -> list[str]:
    """Names of the folders in ``folder``, sorted."""
    if not folder.is_dir():
        raise FileNotFoundError(f'there is no folder {folder}')
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith('.'))


def read_people(path: Path, folds: Sequence[int] | None) -> set[str]:
    """The people of a list, one name a line, or of LFW's ``pairs.txt`` (where its first line is two numbers)."""
    lines = read_lines(path)
    if lines and len(lines[0].split()) == 2 and all(word.isdecimal() for word in lines[0].split()):
        number, pairs = read_pairs(path)
        if folds is not None and not set(folds) <= set(range(number)):
            raise InputError(f'{path} has the folds 0 to {number - 1}, got {sorted(folds)}')
        return {name for pair in pairs if folds is None or pair.fold in folds for name, _ in (pair.left, pair.right)}
    if folds is not None:
        raise InputError(f'{path} is a list of names without folds, got {sorted(folds)}')
    return {line.strip() for line in lines if line.strip()}


@DATASETS.register_module()
class FaceFolder(ImageArrays):
    """``data_root/<identity>/<image>``: people are the classes, in the order of their folders' names.

    The names stay here, in ``people``: ``metainfo``, which goes into every checkpoint, has numbers in their place.

    The first use decodes all images into a file, ``mmcrrcd-<settings>-<fingerprint>.npy`` (37,632 bytes an image of 112
    pixels), memory-mapped from then on. The fingerprint is that of the names, sizes and dates of the images. Where these
    change, a new file takes the place of the old one. Each choice of people has a file of its own.

    Args:
        image_size: side. Images of another size are resized as a whole, bilinear with antialiasing; align and crop them before.
        identities: a text file with one name a line: these people only.
        exclude: a text file like it, or LFW's ``pairs.txt``: all but these people.
        exclude_folds: of ``pairs.txt``, leave out the people of these folds only, counted from 0.
        min_images: leave out people with fewer images.
        cache_dir: folder of the decoded file; ``data_root`` where it is not given.
        device: see :class:`ImageArrays`.

    Raises:
        InputError: an image that cannot be read, a listed person without a folder, nobody left; one line.

    Example:
        >>> FaceFolder('data/lfw/lfw', exclude='data/lfw/pairs.txt', exclude_folds=[0])    # to be tested on the first fold
    """

    def __init__(self, data_root: str, image_size: int = 112, identities: str | None = None, exclude: str | None = None,
                 exclude_folds: Sequence[int] | None = None, min_images: int = 1, cache_dir: str | None = None,
                 device: str = 'cpu'):
        root = Path(data_root)
        if image_size < 1 or min_images < 1:
            raise InputError(f'image_size and min_images are at least 1, got {image_size} and {min_images}')
        if exclude_folds is not None and exclude is None:
            raise InputError('exclude_folds are those of a pairs.txt: set exclude to its path')
        people = list_folders(root)
        if identities is not None:
            wanted = read_people(Path(identities), None)
            if missing := wanted - set(people):
                raise InputError(f'{identities} names {min(missing)!r}, of whom there is no folder in {root}')
            people = [name for name in people if name in wanted]
        if exclude is not None:
            unwanted = read_people(Path(exclude), exclude_folds)
            if not unwanted & set(people):
                raise InputError(f'{exclude} names nobody of {root}')
            people = [name for name in people if name not in unwanted]
        found = {name: images for name in people if len(images := list_images(root / name)) >= min_images}
        if not found:
            raise InputError(f'{root}: the split is empty (nobody with a folder of {min_images} images is left)')
        settings = fingerprint(map(str, (identities, exclude, exclude_folds and sorted(exclude_folds), min_images,
                                         cache_dir and root.resolve())))
        files = [root / name / image for name, images in found.items() for image, _ in images]
        marks = (f'{name}/{image} {mark}' for name, images in found.items() for image, mark in images)
        path = Path(cache_dir or root) / f'mmcrrcd-{image_size}px-{settings}-{fingerprint_of_images(marks)}.npy'
        images = load_decoded(path, files, partial(decode_files, side=image_size), image_size, str(root))
        labels = np.repeat(np.arange(len(found)), [len(images) for images in found.values()])
        super().__init__(images, labels, [str(i) for i in range(len(found))], str(root), device)
        self.people = list(found)
