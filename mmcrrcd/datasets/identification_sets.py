"""Faces to be identified: TinyFace of Cheng et al., ACCV 2018, UCCS of Guenther et al., IJCB 2017, and ORL."""
import logging
from collections.abc import Container, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmengine.logging import print_log
from scipy.io import loadmat

from mmcrrcd.errors import InputError
from mmcrrcd.files import check_there, inside, read_lines
from mmcrrcd.registry import DATASETS

from .decoded import decode_blocks, decode_files, fingerprint, fingerprint_of_images, load_decoded
from .faces import list_folders, list_images, mark_of
from .images import ImageArrays

NOBODY = -100                                            # the id of a distractor
UCCS_PEOPLE, UCCS_COUNTS = 180, {'train': 3_918, 'test': 907}


class FaceFiles(NamedTuple):
    """Images of people.

    Args:
        files: N paths.
        ids: (N,) int64; whoever has the same number is the same person, ``NOBODY`` is somebody else each time.
    """

    files: list[Path]
    ids: np.ndarray

    def blocks(self, image_size: int = 112) -> Iterator[np.ndarray]:
        """The images (n, S, S, 3) uint8, some hundred at a time; resized as in :class:`FaceFolder`."""
        return decode_blocks(self.files, partial(decode_files, side=image_size), str(self.files[0].parent))

    def images(self, image_size: int = 112) -> np.ndarray:
        """All images (N, S, S, 3) uint8 at once."""
        return np.concatenate(list(self.blocks(image_size)))


class TinyFace(NamedTuple):
    """The 1:N test of TinyFace: 3,728 probes are looked for among 4,443 gallery images and 153,428 distractors."""

    gallery: FaceFiles
    probe: FaceFiles
    distractors: FaceFiles


def read_matches(folder: Path, kind: str, images: str) -> FaceFiles:
    """The images that ``<kind>_img_ID_pairs.mat`` lists, which lie in the folder ``images``."""
    path, key = folder / f'{kind}_img_ID_pairs.mat', kind.split('_')[0]
    if not path.is_file():
        raise FileNotFoundError(f'there is no file {path}')
    try:
        content = loadmat(path, variable_names=(f'{key}_set', f'{key}_ids'))
        names = [str(np.ravel(name)[0]) for name in content[f'{key}_set'].ravel()]
        ids = content[f'{key}_ids'].ravel().astype(np.int64)
    except Exception as error:                           # a damaged file can raise nearly anything
        raise InputError(f'{path} is not a readable list of {key}_set and {key}_ids ({error!r})'.replace('\n', ' ')) from error
    if not names or len(names) != len(ids):
        raise InputError(f'{path}: expected an id for each image, got {len(names)} images and {len(ids)} ids')
    files = [inside(folder / images, name, path) for name in names]
    check_there(files, str(path))
    return FaceFiles(files, ids)


def read_tinyface(data_root: str) -> TinyFace:
    """TinyFace's ``Testing_Set`` in ``data_root``; train on its ``Training_Set`` with :class:`FaceFolder`.

    Raises:
        InputError, FileNotFoundError: a list or an image is missing or damaged; one line.
    """
    folder = Path(data_root) / 'Testing_Set'
    gallery = read_matches(folder, 'gallery_match', 'Gallery_Match')
    probe = read_matches(folder, 'probe', 'Probe')
    others = folder / 'Gallery_Distractor'
    if not others.is_dir():
        raise FileNotFoundError(f'there is no folder {others}')
    files = [others / name for name, _ in list_images(others)]
    if not files:
        raise InputError(f'{others}: no image')
    return TinyFace(gallery, probe, FaceFiles(files, np.full(len(files), NOBODY)))


def read_orl(data_root: str) -> FaceFiles:
    """ORL's 400 images, 92 x 112 and gray, ten of each of 40 people: ``s1/1.pgm`` to ``s40/10.pgm`` in ``data_root``.

    Sorted by person and number; ids are those of the folders, from 1.
    """
    keys = [(person, image) for person in range(1, 41) for image in range(1, 11)]
    files = [Path(data_root) / f's{person}' / f'{image}.pgm' for person, image in keys]
    check_there(files, 'ORL')
    return FaceFiles(files, np.array([person for person, _ in keys]))


def read_list(path: Path, people: Container[str]) -> list[str]:
    """The lines ``<identity>/<image>`` of a list."""
    lines = [line.strip() for line in read_lines(path) if line.strip()]
    if not lines:
        raise InputError(f'{path}: the split is empty')
    for i, line in enumerate(lines, 1):
        if line.count('/') != 1 or line.split('/')[0] not in people:
            raise InputError(f'{path}, line {i}: expected <identity>/<image>, a folder beside the list and an image in it, '
                             f'got {line[:60]!r}')
    return lines


@DATASETS.register_module()
class UCCSFaces(ImageArrays):
    """UCCS by the protocol of the paper's Table VI: 180 people of it, 3,918 images to train on, 907 to test.

    The paper drew them at random and does not list them, so ``data_root`` holds the choice. That is ``<identity>/<image>``, a
    folder for each person, and ``train.txt`` and ``test.txt``, one ``<identity>/<image>`` a line. Classes are the folders, by
    their names. Other counts than the paper's are a warning.

    Args:
        split: 'train' or 'test'.
        image_size, cache_dir, device: see :class:`FaceFolder`.
    """

    def __init__(self, data_root: str, split: str = 'train', image_size: int = 112, cache_dir: str | None = None,
                 device: str = 'cpu'):
        if split not in UCCS_COUNTS:
            raise InputError(f"split is 'train' or 'test', got {split!r}")
        root = Path(data_root)
        people = {name: label for label, name in enumerate(list_folders(root))}
        lists = {name: read_list(root / f'{name}.txt', people) for name in UCCS_COUNTS}
        if both := set(lists['train']) & set(lists['test']):
            raise InputError(f'{root}: {min(both)} is in train.txt and in test.txt')
        files = [root / line for line in lists[split]]
        check_there(files, f'{split}.txt')
        place = fingerprint([str(root.resolve())])
        mark = fingerprint_of_images(f'{line} {mark_of(file.stat())}' for line, file in zip(lists[split], files))
        cache = Path(cache_dir or root) / f'mmcrrcd-uccs-{split}-{image_size}px-{place}-{mark}.npy'
        images = load_decoded(cache, files, partial(decode_files, side=image_size), image_size, f'{root} ({split})')
        labels = np.array([people[line.split('/')[0]] for line in lists[split]])
        super().__init__(images, labels, list(people), f'{root} ({split})', device)
        if (len(people), len(files)) != (UCCS_PEOPLE, UCCS_COUNTS[split]):
            print_log(f"{root} ({split}) holds {len(files):,} images of {len(people)} people, the paper's are "
                      f'{UCCS_COUNTS[split]:,} of {UCCS_PEOPLE}', 'current', logging.WARNING)


def split_gallery(faces: FaceFiles, number: int) -> tuple[FaceFiles, FaceFiles]:
    """Gallery and probes: the first ``number`` images of each person, and the others.

    Raises:
        InputError: all images of a person would be in the gallery, or none.
    """
    place = np.array([int((faces.ids[:i] == person).sum()) for i, person in enumerate(faces.ids)])
    if not 0 < number <= place.max():
        raise InputError(f'images of a person in the gallery go from 1 to {place.max()}, got {number}')
    return tuple(FaceFiles([faces.files[i] for i in np.flatnonzero(rows)], faces.ids[rows])
                 for rows in (place < number, place >= number))
