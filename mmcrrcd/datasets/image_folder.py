"""Images of one's own: a folder for each class, ``train/`` and ``val/`` of such, an annotation file, or no classes at all."""
import os
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mmcrrcd.errors import InputError, check_positive, is_number, printable
from mmcrrcd.files import read_lines
from mmcrrcd.registry import DATASETS

from .decoded import decode_files, fingerprint, fingerprint_of_images, load_decoded
from .faces import mark_of
from .images import NO_LABEL, ImageArrays
from .read_image import SUFFIXES

DIGITS = 7                                               # of a label: more would be some other number
NAMES = dict(val=('val', 'valid', 'validation'), test=('test', ))


class Listing(NamedTuple):
    """Files below ``root``, with a label each (:data:`NO_LABEL` where images have no classes), and the classes' names."""
    root: Path
    files: list[str]
    labels: list[int]
    classes: tuple[str, ...]


def images_below(folder: Path) -> list[str]:
    """The images in a folder and below it, sorted, as paths from there; hidden files and folders are left out, and links to a
    folder that they are in.
    """
    found = []
    for place, folders, files in os.walk(folder, followlinks=True):
        above = Path(place).resolve()
        folders[:] = [name for name in folders if not name.startswith(('.', '__')) and not (
            os.path.islink(os.path.join(place, name)) and above.is_relative_to(Path(place, name).resolve()))]
        found += [os.path.relpath(os.path.join(place, name), folder) for name in files
                  if Path(name).suffix.lower() in SUFFIXES and not name.startswith('.')]
    return sorted(found)


def without_classes(root: Path, files: list[str]) -> Listing:
    """Images that have none. Raises InputError where there are none; one line."""
    if not files:
        raise InputError(printable(f'no image in {root} (looked for {", ".join(sorted(SUFFIXES))})'))
    return Listing(root, files, [NO_LABEL] * len(files), ())


def read_folder(root: Path) -> Listing:
    """``<class>/*`` below ``root``, also deeper in a class; or images right in it, which have no classes.

    Raises:
        InputError: no image, a class without one, or images beside the folders; one line.
    """
    names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(('.', '__')))
    beside = sorted(entry.name for entry in os.scandir(root) if entry.is_file() and not entry.name.startswith('.')
                    and Path(entry.name).suffix.lower() in SUFFIXES)
    if names and beside:
        raise InputError(printable(f'{root} holds folders, which are classes ({names[0]}), and images beside them '
                                   f'({beside[0]}): an image is in the folder of its class'))
    if not names:
        return without_classes(root, beside)
    files, labels = [], []
    for label, name in enumerate(names):
        found = images_below(root / name)
        if not found:
            raise InputError(printable(f'{root / name} is a class without an image: remove the folder'))
        files += [f'{name}/{file}' for file in found]
        labels += [label] * len(found)
    return Listing(root, files, labels, tuple(names))


def read_annotations(path: Path) -> Listing:
    """A text file with ``path label`` a line, as mmpretrain's ``CustomDataset`` takes it; without labels, ``path``.

    Paths begin at the file's folder, labels with 0. Names of the classes are the lines of ``classes.txt`` beside it; without
    it they are the labels.

    Raises:
        InputError: a line of another form, one line.
    """
    lines = [line.strip() for line in read_lines(path)]
    split = [line.rsplit(maxsplit=1) for line in lines if line]
    if not split:
        raise InputError(f'{path} is empty: expected "path label" a line')
    if all(Path(words[-1]).suffix.lower() in SUFFIXES for words in split):
        return without_classes(path.parent, [line for line in lines if line])
    for i, words in enumerate(split, 1):
        if len(words) != 2 or not words[1].isdecimal() or len(words[1]) > DIGITS:
            raise InputError(printable(f'{path}, image {i}: expected "path label", got {" ".join(words)[:60]!r}'))
    labels = [int(label) for _, label in split]
    names = path.parent / 'classes.txt'
    if names.is_file():
        classes = tuple(line.strip() for line in read_lines(names) if line.strip())
        if double := next((name for name in classes if classes.count(name) > 1), None):
            raise InputError(printable(f'{names} names the class {double!r} twice'))
    else:
        classes = tuple(map(str, range(max(labels) + 1)))
    if max(labels) >= len(classes):
        raise InputError(f'{path} has the label {max(labels)}, and {names} names {len(classes)} classes, 0 to '
                         f'{len(classes) - 1}')
    return Listing(path.parent, [file for file, _ in split], labels, classes)


def part_of(root: Path, *names: str) -> Listing | None:
    """What is in the first folder, or annotation file, of these names in ``root``; None where there is none.

    Where other folders lie beside it, as where a class is called ``train``, it is no part.
    """
    parts = {'train', *NAMES['val'], *NAMES['test']}
    if any(entry.is_dir() and entry.name not in parts and not entry.name.startswith(('.', '__')) for entry in os.scandir(root)):
        names = [name for name in names if (root / f'{name}.txt').is_file()]
    for name in names:
        if (root / f'{name}.txt').is_file():
            return read_annotations(root / f'{name}.txt')
        if (root / name).is_dir():
            return read_folder(root / name)
    return None


def with_classes(part: Listing, classes: tuple[str, ...]) -> Listing:
    """The same images with labels in the order of ``classes``. Raises InputError for a class that is not among them."""
    if part.classes == classes:
        return part
    if unknown := sorted(set(part.classes) - set(classes)):
        raise InputError(printable(f'{part.root} has the class {unknown[0]!r}, which the training images do not have'))
    place = [classes.index(name) for name in part.classes]
    return part._replace(labels=[place[label] for label in part.labels], classes=classes)


def held_out(labels: list[int], share: float, seed: int) -> np.ndarray:
    """(N,) bool: a share of each class, at least one image of a class with two, drawn by ``seed``."""
    labels, chosen = np.array(labels), np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        number = min(max(round(share * len(own)), 1), len(own) - 1)
        chosen[np.random.default_rng([seed, label]).permutation(own)[:number]] = True
    return chosen


def read_split(data_root: str | Path, split: str, holdout: float = 0.1, seed: int = 0, labels: bool = True) -> Listing:
    """The images of a split, see :class:`ImageFolder`."""
    root = Path(data_root)
    if not root.exists():
        raise FileNotFoundError(f'there is no folder {root}: data_root names that of your images')
    if not labels and root.is_dir():
        return without_classes(root, images_below(root))
    whole = read_annotations(root) if root.is_file() else part_of(root, 'train') or read_folder(root)
    if split == 'train' and NO_LABEL in whole.labels:
        return whole
    if NO_LABEL in whole.labels:
        raise InputError(f'{root}: the images have no classes, so there is nothing to test on: leave val_dataloader out, as '
                         'configs/custom/student_16px_label_free.py does')
    other = None if root.is_file() else part_of(root, *NAMES['val'])
    if split == 'test' and not root.is_file():
        test = part_of(root, *NAMES['test'])
        other = test if test is not None and NO_LABEL not in test.labels else other
    if other is not None and split != 'train':
        return with_classes(other, whole.classes)
    if other is not None:
        return whole
    out = held_out(whole.labels, holdout, seed) == (split != 'train')
    return whole._replace(files=[whole.files[i] for i in np.flatnonzero(out)],
                          labels=[whole.labels[i] for i in np.flatnonzero(out)])


@DATASETS.register_module()
class ImageFolder(ImageArrays):
    """Images of one's own, of any formats, sizes and shapes. ``data_root`` is one of these:

    - a folder with ``<class>/*`` (also deeper in a class), classes in the order of their names;
    - a folder with ``train/`` and ``val/`` (and ``test/``) of such, or with ``train.txt`` and ``val.txt``;
    - a text file with ``path label`` a line, as of mmpretrain's ``CustomDataset``, ``classes.txt`` beside it;
    - a folder with ``*``, or a text file with ``path`` a line: images without classes, for losses that need none. With
      ``labels=False`` so are all images in a folder and below it.

    Each image is resized to a square as a whole, as :func:`read_image` does, once, into a memory-mapped file in ``cache_dir``
    (``3 * image_size**2`` bytes an image). A file is made anew where names, sizes or dates of the images change.

    Args:
        split: 'train', 'val' or 'test'. Without ``val`` a part of the training images is held out; without ``test`` it is
            'val'.
        image_size: side in pixels, what the teacher sees.
        holdout: share of each class that is held out, drawn by ``seed``.
        labels: False for images without classes, wherever they lie.
        cache_dir: folder of the decoded files.
        device: see :class:`ImageArrays`.

    Raises:
        InputError, FileNotFoundError: no image, one that cannot be read, a class of ``val`` that is not in ``train``; one line.

    Example:
        >>> ImageFolder('my_images', 'val').metainfo['classes']
        ('cat', 'dog')
    """

    def __init__(self, data_root: str, split: str = 'train', image_size: int = 64, holdout: float = 0.1, seed: int = 0,
                 labels: bool = True, cache_dir: str = 'work_dirs/decoded', device: str = 'cpu'):
        if split not in ('train', 'val', 'test'):
            raise InputError(f"split is 'train', 'val' or 'test', got {split!r}")
        check_positive(whole=True, image_size=image_size)
        if not is_number(holdout) or not 0 < holdout < 1:
            raise InputError(f'holdout is a share between 0 and 1, got {holdout!r}')
        listing = read_split(data_root, split, holdout, seed, labels)
        if split == 'test' and listing == read_split(data_root, 'val', holdout, seed, labels):
            split = 'val'                                # decoded already
        root, files, numbers, classes = listing
        name, place = Path(os.path.abspath(data_root)).stem, fingerprint([os.path.abspath(data_root), split])
        try:
            mark = fingerprint_of_images(f'{file} {mark_of(os.stat(root / file))}' for file in files)
        except OSError as error:
            raise FileNotFoundError(f'{error.filename} of {data_root} is missing') from error
        path = Path(cache_dir) / f'mmcrrcd-{name}-{split}-{image_size}px-{place}-{mark}.npy'
        images = load_decoded(path, [root / file for file in files], partial(decode_files, side=image_size), image_size,
                              f'{data_root} ({split})')
        super().__init__(images, numbers, list(classes), f'{data_root} ({split})', device, unlabeled=True)

    def __getitems__(self, indices: list[int]) -> dict:
        batch = super().__getitems__(indices)
        if not self.metainfo:
            del batch['labels']
        return batch

    @staticmethod
    def list_classes(data_root: str, labels: bool = True, **_) -> tuple[str, ...]:
        """Names of the classes, without a look into any image; none where the images have no classes."""
        return read_split(data_root, 'train', labels=labels).classes
