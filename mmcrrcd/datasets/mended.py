"""Parts of mmpretrain's data sets as this package needs them. No hidden folder is a class, an unreadable image is named, and
data sets in memory go into mmengine's wrappers.
"""
import os
import stat

from mmcv.transforms import LoadImageFromFile
from mmpretrain.datasets import custom
from torch.utils.data import Dataset

from mmcrrcd.errors import InputError, first_line

from .read_image import MAX_PIXELS, ImageError

_find_folders = custom.find_folders


def visible_folders(root: str, backend=None) -> tuple[list[str], dict[str, int]]:
    """The classes of a folder as mmpretrain finds them, without hidden ones such as ``.ipynb_checkpoints``."""
    folders, _ = _find_folders(root, backend)
    folders = [name for name in folders if not name.startswith('.')]
    return folders, {name: i for i, name in enumerate(folders)}


if custom.find_folders.__module__ != __name__:
    custom.find_folders = visible_folders                # CustomDataset looks it up when it reads its folder


class LoadNamedImage(LoadImageFromFile):
    """mmcv's transform with one line that names the file where it cannot be read; a pipe is not waited for."""

    def transform(self, results: dict) -> dict | None:
        """See mmcv. Raises InputError where the image is missing, none, or a damaged one."""
        file = results['img_path']
        try:
            if '://' not in str(file) and not stat.S_ISREG(os.stat(file).st_mode):
                raise OSError('it is no regular file')
            if '://' not in str(file) and not os.path.getsize(file):
                raise OSError('it is empty')
            return super().transform(results)
        except FileNotFoundError:
            if self.ignore_empty:
                return None
            raise InputError(f'the image {file} is missing') from None
        except Exception as error:                       # OpenCV and Pillow raise many kinds for damaged files
            if self.ignore_empty:
                return None
            reason = getattr(error, 'strerror', None) or first_line(error)
            if 'CV_IO_MAX_IMAGE' in reason:              # of OpenCV, see mmcrrcd/__init__.py
                reason = f'more than {MAX_PIXELS:,} pixels'
            raise ImageError(file, 'it is damaged or no image' if 'failed to load image' in reason else reason) from error


def parts_of(dataset: Dataset) -> list[Dataset]:
    """A data set and all those in it: mmengine's and torch's wrappers hold them as ``dataset`` or ``datasets``."""
    inner = [*(getattr(dataset, 'datasets', None) or ()), getattr(dataset, 'dataset', None)]
    return [dataset, *(part for each in inner if isinstance(each, Dataset) for part in parts_of(each))]


def name_images(dataset: Dataset) -> None:
    """From now on the pipelines of ``dataset``, and of those in it, name an image that they cannot read."""
    for part in parts_of(dataset):
        for step in getattr(getattr(part, 'pipeline', None), 'transforms', None) or ():
            if type(step) is LoadImageFromFile:
                step.__class__ = LoadNamedImage


def numbers_twice(dataset: Dataset) -> bool:
    """Do several images have the same position, as those of the parts of a ``ConcatDataset`` do, which count from 0 each?"""
    return any(len(getattr(part, 'datasets', None) or ()) > 1 for part in parts_of(dataset))
