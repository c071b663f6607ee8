"""Image data sets as arrays: everything in memory as uint8, whole batches at once."""
import copy
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.device import get_device
from mmengine.logging import print_log
from torch.utils.data import Dataset
from torchvision.datasets import CIFAR10, CIFAR100

from mmcrrcd.errors import InputError, first_line
from mmcrrcd.registry import DATASETS, FUNCTIONS
from mmcrrcd.torch_file import DType

from .download import fetch

NO_LABEL = -100                                          # of an image without one: PyTorch's cross-entropy leaves it out


def class_numbers(labels, name: str) -> np.ndarray:
    """Labels (N,) int64 from an array, a list or a tensor of whole numbers. Columns, (N, 1), are taken as well.

    Raises:
        InputError: they are no whole numbers, or several for an image; ``name`` is said in front.
    """
    labels = labels.detach().cpu().numpy() if isinstance(labels, torch.Tensor) else labels
    try:
        found = np.asarray(labels)
    except ValueError:                                   # lists of several lengths
        raise InputError(f'{name}: labels are one class for each image, got lists of several lengths') from None
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim != 1:
        raise InputError(f'{name}: labels are one class for each image, (N,), got {found.shape}'
                         + ('; of one-hot labels take labels.argmax(1)' if found.ndim == 2 else ''))
    if found.dtype.kind not in 'biuf':
        raise InputError(f'{name}: labels are whole numbers, got {found.dtype}')
    if found.dtype.kind == 'f' and (wrong := found[~(np.isfinite(found) & (found == np.round(found)))]).size:
        raise InputError(f'{name}: labels are whole numbers, got {wrong[0]}')
    return found.astype(np.int64)


class ImageArrays(Dataset):
    """Images (N, H, W, 3) uint8 RGB, each with a label.

    Indexed with a list, as PyTorch's ``DataLoader`` does, it returns the whole batch in one piece. That is ``inputs``
    (N, 3, H, W) in uint8, and ``labels`` and ``index``, N numbers in int64. Use it with ``collate_fn=whole_batch``.

    Args:
        images: an array. Of a memory-mapped one, ``np.load(path, mmap_mode='c')``, only the batches are read.
        labels: whole numbers, in an array, a list or a tensor.
        device: where the images are kept and batches made. With 'auto' that is the GPU, if there is one and they take less than
            half of its free memory. On a GPU this spares the copy of every batch, and needs ``num_workers=0``.
        unlabeled: may there be images without a label, whose label is :data:`NO_LABEL`? Without any there are no classes.

    Raises:
        InputError: no image, counts that differ, labels outside the classes, or that are no whole numbers.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray | Sequence[int] | torch.Tensor, classes: list[str], name: str,
                 device: str = 'cpu', unlabeled: bool = False):
        if len(images) == 0:
            raise InputError(f'{name}: the split is empty')
        if not isinstance(images, np.ndarray):
            raise InputError(f'{name}: expected an array of images (N, H, W, 3) uint8, got a {type(images).__name__}')
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
            raise InputError(f'{name}: expected images (N, H, W, 3) uint8, got {images.shape} {images.dtype}')
        labels = class_numbers(labels, name)
        if len(labels) != len(images):
            raise InputError(f'{name}: {len(images)} images but {len(labels)} labels')
        known = labels[labels != NO_LABEL] if unlabeled else labels
        if known.size and (known.min() < 0 or known.max() >= len(classes)):
            raise InputError(f'{name}: labels go from {known.min()} to {known.max()}, but there are {len(classes)} classes')
        if device == 'auto':
            device = get_device()
            if device == 'cuda' and images.nbytes > torch.cuda.mem_get_info()[0] / 2:
                print_log(f'{name}: {images.nbytes / 1e9:.1f} GB of images stay outside the GPU', 'current')
                device = 'cpu'
        try:
            self.images = torch.from_numpy(np.ascontiguousarray(images)).to(device)
            self.labels = torch.from_numpy(labels).to(device)
        except (RuntimeError, AssertionError) as error:  # there is no such device, or it is full
            raise InputError(f'{name}: the images cannot be kept on device={device!r}: {first_line(error)[:200]}') from error
        self.metainfo = dict(classes=tuple(classes)) if classes else {}

    @property
    def CLASSES(self) -> tuple[str, ...]:                # noqa: N802
        """The classes' names, where mmpretrain's hooks look for them."""
        return self.metainfo['classes']

    def __len__(self) -> int:
        return len(self.images)

    def full_init(self) -> None:
        """For mmengine's wrappers, which call it: all is there already."""

    def get_cat_ids(self, idx: int) -> list[int]:
        """For mmengine's ``ClassBalancedDataset``: the class of an image."""
        return [int(self.labels[idx])]

    def get_gt_labels(self) -> np.ndarray:
        """For mmpretrain's ``KFoldDataset``: the classes (N,) of all images."""
        return self.labels.cpu().numpy()

    def get_subset(self, indices: Sequence[int]) -> 'ImageArrays':
        """For ``KFoldDataset``: the images at these places, a data set of its own."""
        part = copy.copy(self)
        part.images, part.labels = self.images[list(indices)], self.labels[list(indices)]
        return part

    def __getitem__(self, i: int) -> dict:
        return self.__getitems__([i])

    def __getitems__(self, indices: list[int]) -> dict:
        index = torch.as_tensor(indices).to(self.images.device, non_blocking=True)
        return dict(inputs=self.images[index].permute(0, 3, 1, 2), labels=self.labels[index], index=index)


@FUNCTIONS.register_module()
def whole_batch(batch: dict | list[dict]) -> dict:
    """The ``collate_fn`` of a data set whose ``__getitems__`` already returns a batch; batches of single images, which come
    through mmengine's wrappers, are joined.

    Raises:
        InputError: these are samples of mmpretrain's pipelines.
    """
    if isinstance(batch, dict):
        return batch
    if not all(isinstance(part, dict) and isinstance(part.get('labels'), torch.Tensor) for part in batch):
        raise InputError('whole_batch is the collate_fn of data in memory; samples of a pipeline of mmpretrain take '
                         "collate_fn=dict(type='pseudo_collate')")
    return {key: torch.cat([part[key] for part in batch]) for key in batch[0]}


class _Array:
    """Stands in for a NumPy array of uint8 in a pickle. NumPy's own loading crashes on damaged ones."""

    def __init__(self, *_):
        self.value = None

    def __setstate__(self, state):
        _, shape, dtype, by_columns, data = state
        if dtype.name != 'u1':
            raise pickle.UnpicklingError(f'expected an array of uint8, got {dtype.name}')
        data = data.encode('latin1') if isinstance(data, str) else data
        self.value = np.frombuffer(data, np.uint8).reshape(shape, order='F' if by_columns else 'C')


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles plain Python values and arrays of uint8, and nothing that could run code."""

    known = {('numpy.core.multiarray', '_reconstruct'): _Array, ('numpy._core.multiarray', '_reconstruct'): _Array,
             ('numpy', 'ndarray'): _Array, ('numpy', 'dtype'): DType}

    def find_class(self, module, name):
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f'refused to load {module}.{name}')
        return self.known[module, name]


def read_pickle(path: Path, *keys: str) -> list:
    """The values under ``keys`` in a CIFAR pickle, loaded so that it cannot run code."""
    try:
        with open(path, 'rb') as file:
            content = _ArrayUnpickler(file, encoding='latin1').load()
        values = [content[key] for key in keys]
    except Exception as error:                           # a damaged pickle can raise nearly anything
        raise InputError(f'{path} is not a readable CIFAR file ({error!r}); delete it to download it again') from error
    return [value.value if isinstance(value, _Array) else value for value in values]


class _CIFAR(ImageArrays):
    """CIFAR from its official pickles under ``data_root``, downloaded there when missing.

    Files with another checksum than the official archive's are taken when their shapes, counts and labels are right.
    """

    official: type                                       # torchvision's class: urls, checksums, file names
    label_key: str
    names_key: str

    def __init__(self, data_root: str, split: str = 'train', download: bool = True, device: str = 'cpu'):
        if split not in ('train', 'test'):
            raise InputError(f"split is 'train' or 'test', got {split!r}")
        official = self.official
        folder = Path(data_root) / official.base_folder
        files = [folder / name for name, _ in (official.train_list if split == 'train' else official.test_list)]
        names_file = folder / official.meta['filename']
        fetch(folder, official.url, official.tgz_md5, download, *files, names_file)
        parts = [read_pickle(path, 'data', self.label_key) for path in files]
        for path, (data, _) in zip(files, parts):
            if np.shape(data)[1:] != (3 * 32 * 32,):
                raise InputError(f'{path}: expected data (N, 3072), got {np.shape(data)}')
        images = np.concatenate([data for data, _ in parts]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        labels = np.concatenate([np.asarray(labels) for _, labels in parts])
        classes, = read_pickle(names_file, self.names_key)
        super().__init__(images, labels, classes, f'{folder} ({split})', device)
        expected = 50_000 if split == 'train' else 10_000
        if len(images) != expected:
            raise InputError(f'{folder} ({split}): expected {expected} images, got {len(images)}')


@DATASETS.register_module()
class CIFAR10Arrays(_CIFAR):
    __doc__ = _CIFAR.__doc__
    official, label_key, names_key = CIFAR10, 'labels', 'label_names'


@DATASETS.register_module()
class CIFAR100Arrays(_CIFAR):
    __doc__ = _CIFAR.__doc__
    official, label_key, names_key = CIFAR100, 'fine_labels', 'fine_label_names'
