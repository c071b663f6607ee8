"""Street View House Numbers (Netzer et al., 2011, http://ufldl.stanford.edu/housenumbers) as arrays."""
from pathlib import Path

import numpy as np
from scipy.io import loadmat
from torchvision.datasets import SVHN

from mmcrrcd.errors import InputError
from mmcrrcd.registry import DATASETS

from .download import fetch
from .images import ImageArrays

SPLITS = {'train': ['train'], 'extra': ['extra'], 'test': ['test'], 'train+extra': ['train', 'extra']}
COUNTS = {'train': 73_257, 'extra': 531_131, 'test': 26_032}


def read_digits(path: Path, number: int, part: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 32, 32, 3) uint8, a view, and N digits, of a file of cropped digits; N is ``number``, of a ``part`` less."""
    try:
        content = loadmat(path, variable_names=('X', 'y'))
        images, labels = content['X'], content['y'].ravel()
    except Exception as error:                           # a damaged file can raise nearly anything
        raise InputError(f'{path} is not a readable SVHN file ({error!r}); delete it to download it again') from error
    whole, shape = number, (32, 32, 3, number)
    if part and images.ndim == 4 and 0 < images.shape[3] < number:
        number = images.shape[3]
    if images.shape != (32, 32, 3, number) or images.dtype != np.uint8:
        hint = '; part=True takes fewer' if images.shape[:3] == shape[:3] and 0 < images.shape[-1] < whole else ''
        raise InputError(f'{path}: expected X {shape} uint8, got {images.shape} {images.dtype}{hint}')
    if len(labels) != number or not np.isin(labels, np.arange(1, 11)).all():
        raise InputError(f'{path}: expected {number} labels from 1 to 10, got {len(labels)}, from {min(labels, default=0)} to '
                         f'{max(labels, default=0)}')
    return images.transpose(3, 0, 1, 2), labels.astype(np.int64) % 10


@DATASETS.register_module()
class SVHNArrays(ImageArrays):
    """The cropped digits of SVHN, 32 x 32, from the official ``train_32x32.mat`` and so on in ``data_root``.

    Classes are the digits; the files say 10 for a 0. Missing files are downloaded; those with another checksum than the
    official ones are taken when their shapes, counts and labels are right.

    Args:
        split: 'train', 'extra', 'train+extra' or 'test'. Of 'train' there are 73,257 digits, of 'extra' 531,131 easier ones, of
            'test' 26,032. The extra images take 1.6 GB of memory, twice that while they are read.
        part: may files hold fewer images than the official ones? The data set's length says how many there are.
        download, device: see :class:`CIFAR100Arrays`.
    """

    def __init__(self, data_root: str, split: str = 'train', part: bool = False, download: bool = True,
                 device: str = 'cpu'):
        if split not in SPLITS:
            raise InputError(f'split is one of {", ".join(map(repr, SPLITS))}, got {split!r}')
        total = sum(COUNTS[name] for name in SPLITS[split])
        images, labels, at = np.empty((total, 32, 32, 3), np.uint8), np.empty(total, np.int64), 0
        for name in SPLITS[split]:
            url, file, md5 = SVHN.split_list[name]
            path = Path(data_root) / file
            fetch(path, url, md5, download)
            some, digits = read_digits(path, COUNTS[name], part)
            images[at:at + len(some)], labels[at:at + len(some)] = some, digits
            at += len(some)
        super().__init__(images[:at], labels[:at], [str(digit) for digit in range(10)], f'{data_root} ({split})', device)
