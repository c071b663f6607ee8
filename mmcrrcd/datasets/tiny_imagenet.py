"""Tiny ImageNet (200 classes of ImageNet at 64 x 64, http://cs231n.stanford.edu) as arrays, decoded once."""
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mmengine.logging import print_log

from mmcrrcd.errors import InputError
from mmcrrcd.files import inside, read_lines
from mmcrrcd.registry import DATASETS

from .decoded import fingerprint_of_images, load_decoded
from .download import fetch
from .images import ImageArrays
from .read_image import read_image

URL, MD5 = 'http://cs231n.stanford.edu/tiny-imagenet-200.zip', '90528d7ca1a48142e341f4ef8d21d0de'
FOLDER, SIDE = 'tiny-imagenet-200', 64
ALSO_CALLED = ('tinyimagenet', 'tiny_imagenet', 'tiny-imagenet', 'TinyImageNet', 'tiny_imagenet_200')
COUNTS = {'train': 100_000, 'val': 10_000}


def check_place(folder: Path) -> None:
    """Raises FileNotFoundError where the images lie beside ``folder`` or right in ``data_root``, but not in ``folder``."""
    root = folder.parent
    named = [root.parent / name for name in ALSO_CALLED]
    for place in (root, root.parent / FOLDER, *(each / FOLDER for each in named), *named):
        if not folder.exists() and (place / 'wnids.txt').is_file():
            remedy = f"set data_root='{place.parent}'" if place.name == FOLDER else f'move what it holds into {folder}'
            raise FileNotFoundError(f'{folder} is missing, but the images are in {place}: {remedy}')


def read_classes(folder: Path) -> dict[str, str]:
    """From WordNet's number to a name, the first of the synonyms; in the order of the numbers."""
    names = dict(line.split('\t', 1) for line in read_lines(folder / 'words.txt', folder) if '\t' in line)
    numbers = sorted(line.strip() for line in read_lines(folder / 'wnids.txt', folder) if line.strip())
    if len(set(numbers)) != 200:
        raise InputError(f'{folder / "wnids.txt"}: expected 200 classes, got {len(set(numbers))}')
    return {number: names.get(number, number).split(',')[0].strip() for number in numbers}


def list_train(folder: Path, classes: dict[str, str]) -> tuple[list[Path], list[int]]:
    """Files and labels of ``train/<class>/images``, sorted by name within a class."""
    files, labels = [], []
    for label, number in enumerate(classes):
        images = folder / 'train' / number / 'images'
        found = sorted(images.glob('*.JPEG'))
        if not found:
            raise FileNotFoundError(f'there is no image in {images}')
        files += found
        labels += [label] * len(found)
    return files, labels


def list_val(folder: Path, classes: dict[str, str]) -> tuple[list[Path], list[int]]:
    """Files and labels of ``val/images``, in the order of ``val_annotations.txt``. Or of ``val/<class>``, sorted, where others
    have moved them there, with the images in the folder or in ``images`` below it.
    """
    order = {number: label for label, number in enumerate(classes)}
    path, files, labels = folder / 'val' / 'val_annotations.txt', [], []
    moved = {number: place for number in classes if (place := folder / 'val' / number).is_dir()}
    if moved and not any((folder / 'val' / 'images').glob('*.JPEG')):
        for number, place in moved.items():
            found = sorted(place.rglob('*.JPEG'))
            files += found
            labels += [order[number]] * len(found)
        if not files:
            raise FileNotFoundError(f'there is no image in the folders of classes in {folder / "val"}')
        return files, labels
    for i, line in enumerate(read_lines(path, folder), 1):
        name, number, *_ = line.split('\t') + ['']
        if number not in order:
            raise InputError(f'{path}, line {i}: expected a file, a class of wnids.txt and a box, got {line[:60]!r}')
        files.append(inside(folder / 'val' / 'images', name, f'{path}, line {i}'))
        labels.append(order[number])
    return files, labels


def decode(files: list[Path]) -> np.ndarray:
    """(N, 64, 64, 3) uint8 RGB; gray images get three equal channels."""
    images = np.empty((len(files), SIDE, SIDE, 3), np.uint8)
    for image, path in zip(images, files):
        pixels = read_image(path)
        if pixels.shape != image.shape:
            raise InputError(f'{path}: expected {SIDE} x {SIDE} pixels, got {pixels.shape[1]} x {pixels.shape[0]}')
        image[:] = pixels
    return images


def file_marks(files: list[Path], folder: Path) -> Iterator[str]:
    """Names and sizes of the files, in their order."""
    for path in files:
        try:
            yield f'{path.relative_to(folder)} {path.stat().st_size}'
        except FileNotFoundError as error:
            raise FileNotFoundError(f'{path} is missing; delete {folder} to download it again') from error


@DATASETS.register_module()
class TinyImageNetArrays(ImageArrays):
    """Tiny ImageNet, 200 classes, 64 x 64, from the official folder ``tiny-imagenet-200`` in ``data_root``; its archive is
    downloaded where that is missing. Images under another common name in the folder above, or right in ``data_root``, are
    a FileNotFoundError that says where they have to be.

    The first use decodes all images into a file beside them, ``mmcrrcd-<split>-<fingerprint>.npy`` (1.2 GB for 'train'), which
    is memory-mapped from then on. The fingerprint is that of the names and sizes of the image files. Where these change, a new
    file takes the place of the old one. A folder with fewer images than the official one is taken, with a warning.

    Args:
        split: 'train' or 'val', of 100,000 and 10,000 images; 'test' is 'val', too, as the official test images have no labels.
        download, device: see :class:`CIFAR100Arrays`.
    """

    def __init__(self, data_root: str, split: str = 'train', download: bool = True, device: str = 'cpu'):
        if split not in ('train', 'val', 'test'):
            raise InputError(f"split is 'train', 'val' or 'test', got {split!r}")
        split = 'train' if split == 'train' else 'val'
        folder = Path(data_root) / FOLDER
        check_place(folder)
        fetch(folder, URL, MD5, download)
        classes = read_classes(folder)
        files, labels = (list_train if split == 'train' else list_val)(folder, classes)
        name = f'{folder} ({split})'
        if not files:
            raise InputError(f'{name}: the split is empty')
        mark = fingerprint_of_images(file_marks(files, folder))
        images = load_decoded(folder / f'mmcrrcd-{split}-{mark}.npy', files, decode, SIDE, name, in_each_run=True)
        super().__init__(images, np.array(labels), list(classes.values()), name, device)
        if len(files) != COUNTS[split]:
            print_log(f'{name} holds {len(files):,} of the official {COUNTS[split]:,} images', 'current',
                      logging.WARNING)
