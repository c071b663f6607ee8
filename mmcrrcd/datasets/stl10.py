"""STL-10 (Coates et al., AISTATS 2011, https://cs.stanford.edu/~acoates/stl10) as arrays."""
from pathlib import Path

import numpy as np
from torchvision.datasets import STL10

from mmcrrcd.errors import InputError
from mmcrrcd.files import read_lines
from mmcrrcd.registry import DATASETS

from .download import fetch
from .images import NO_LABEL, ImageArrays

SPLITS = {'train': ['train'], 'test': ['test'], 'unlabeled': ['unlabeled'], 'train+unlabeled': ['train', 'unlabeled']}
COUNTS = {'train': 5_000, 'test': 8_000, 'unlabeled': 100_000}
SIDE = 96


def read_bytes(path: Path, expected: int) -> np.ndarray:
    """A file of ``expected`` bytes, mapped into memory."""
    if not path.is_file():
        raise FileNotFoundError(f'{path} is missing; delete {path.parent} to download it again')
    if path.stat().st_size != expected:
        raise InputError(f'{path}: expected {expected} bytes, got {path.stat().st_size}; delete {path.parent} to download it '
                         'again')
    return np.memmap(path, np.uint8, 'r')


def read_exactly(path: Path, expected: int) -> list[str]:
    """The lines of a text file that has ``expected`` of them; InputError otherwise."""
    if len(lines := read_lines(path, path.parent)) != expected:
        raise InputError(f'{path}: expected {expected} lines, got {len(lines)}')
    return lines


def read_fold(path: Path, fold: int) -> np.ndarray:
    """Positions of one of the ten folds in the training split."""
    words = read_exactly(path, 10)[fold].split()
    if words and all(word.isdecimal() and int(word) < COUNTS['train'] for word in words):
        return np.array(words, np.int64)
    raise InputError(f'{path}: line {fold + 1} is not a list of positions below {COUNTS["train"]}')


@DATASETS.register_module()
class STL10Arrays(ImageArrays):
    """STL-10, 96 x 96, from the official ``stl10_binary`` in ``data_root``; its archive (2.6 GB) is downloaded where that is
    missing. Sizes of files, counts and labels are checked.

    Args:
        split: 'train', 'test', 'unlabeled' or 'train+unlabeled'. Of 'train' there are 5,000 images, of 'test' 8,000, of
            'unlabeled' 100,000, which take 2.8 GB of memory. Images without a label have the label -100: the classification
            loss leaves them out, KD and the unsupervised relational loss use them. They are for training only, with losses that
            do not look at labels.
        fold: 0 to 9, one of the official folds of 1,000 training images each; for 'train'.
        download, device: see :class:`CIFAR100Arrays`.
    """

    def __init__(self, data_root: str, split: str = 'train', fold: int | None = None, download: bool = True,
                 device: str = 'cpu'):
        if split not in SPLITS:
            raise InputError(f'split is one of {", ".join(map(repr, SPLITS))}, got {split!r}')
        if fold is not None and (split != 'train' or fold not in range(10)):
            raise InputError(f"fold is a number from 0 to 9, of split='train'; got {fold!r} of {split!r}")
        folder = Path(data_root) / STL10.base_folder
        fetch(folder, STL10.url, STL10.tgz_md5, download)
        classes = read_exactly(folder / STL10.class_names_file, 10)
        parts = SPLITS[split]
        total = sum(COUNTS[part] for part in parts)
        images, labels, at = np.empty((total, SIDE, SIDE, 3), np.uint8), np.full(total, NO_LABEL), 0
        for part in parts:
            number = COUNTS[part]
            planes = read_bytes(folder / f'{part}_X.bin', number * 3 * SIDE**2).reshape(number, 3, SIDE, SIDE)
            images[at:at + number] = planes.transpose(0, 3, 2, 1)       # they are stored by columns
            if part != 'unlabeled':
                labels[at:at + number] = read_bytes(folder / f'{part}_y.bin', number).astype(np.int64) - 1
            at += number
        if fold is not None:
            index = read_fold(folder / STL10.folds_list_file, fold)
            images, labels = images[index], labels[index]
        super().__init__(images, labels, classes, f'{folder} ({split})', device, unlabeled=True)
