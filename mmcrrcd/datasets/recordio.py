"""Faces in MXNet's RecordIO as InsightFace publishes them, ``train.rec`` and ``train.idx``; read without MXNet."""
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch.utils.data import Dataset

from mmcrrcd.errors import InputError, first_line
from mmcrrcd.registry import DATASETS

from .decoded import decode_encoded, fingerprint, fingerprint_of_images, load_decoded

MAGIC = 0xced7230a
WHOLE, FIRST, MIDDLE, LAST = range(4)                    # what part of a record it is
HEADER = struct.Struct('<IfQQ')                          # MXNet's IRHeader: length of the label array, or 0; label, id, id2
WORD = 4
MAX_LENGTH = (1 << 29) - 1
MAX_CLASSES = 1 << 24                                    # a label is a float32


class RecordFile:
    """A ``.rec`` with its ``.idx``; opened anew for each use, so that a data loader's workers can share it.

    The index has lines ``number TAB byte``. A record lies at a multiple of four bytes: MAGIC, a word, the bytes. The word's
    upper 3 bits are the part, its lower 29 the length. One whose bytes hold MAGIC themselves at such a place is cut there: a
    FIRST part, MIDDLE ones, a LAST one, without those MAGIC.

    Args:
        path: of the ``.rec``; the ``.idx`` lies beside it.

    Raises:
        InputError: the file is cut short, or holds no record where the index says so; one line.
    """

    def __init__(self, path: Path):
        index = path.with_suffix('.idx')
        for file in (path, index):
            if not file.is_file():
                raise FileNotFoundError(f'there is no file {file}')
        try:
            numbers, offsets = np.loadtxt(index, np.int64, delimiter='\t', ndmin=2).T
        except ValueError as error:
            raise InputError(f'{index}: expected lines of a number, a tab and a byte ({first_line(error)})') from error
        order = numbers.argsort()
        self.path, self.size, self.numbers, self.offsets = path, path.stat().st_size, numbers[order], offsets[order]
        if (wrong := (self.offsets < 0) | (self.offsets % WORD > 0)).any():
            raise InputError(f'{index}: record {self.numbers[wrong.argmax()]} is at byte {self.offsets[wrong.argmax()]}, '
                             f'expected a multiple of {WORD}')
        if (last := self.offsets.max(initial=0)) + 2 * WORD > self.size:
            raise InputError(f'{path} is cut short: its index has a record at byte {last:,}, it ends at {self.size:,}')

    def find(self, numbers: np.ndarray) -> np.ndarray:
        """(N,) bytes where the records with these numbers begin."""
        at = np.searchsorted(self.numbers, numbers).clip(max=len(self.numbers) - 1)
        if (missing := self.numbers[at] != numbers).any():
            raise InputError(f'{self.path}: its index has no record {numbers[missing.argmax()]}')
        return self.offsets[at]

    def read(self, numbers: np.ndarray) -> list[bytes]:
        """The bytes of records."""
        with open(self.path, 'rb') as file:
            return [self._read(file, number, offset) for number, offset in zip(numbers, self.find(numbers).tolist())]

    def _read(self, file: BinaryIO, number: int, offset: int) -> bytes:
        file.seek(offset)
        parts, expected = [], (WHOLE, FIRST)
        while True:
            head = file.read(2 * WORD)
            magic, word = struct.unpack('<II', head.ljust(2 * WORD, b'\0'))
            part, length = word >> 29, word & MAX_LENGTH
            if len(head) == 2 * WORD and (magic != MAGIC or part not in expected):
                raise InputError(f'{self.path}: no record {number} at byte {offset:,}; is its .idx that of another file?')
            parts.append(file.read(length + -length % WORD)[:length])
            if len(head) < 2 * WORD or len(parts[-1]) < length:
                raise InputError(f'{self.path} is cut short: record {number} goes beyond its end, byte {self.size:,}')
            if part in (WHOLE, LAST):
                return struct.pack('<I', MAGIC).join(parts)
            expected = (MIDDLE, LAST)

    def first_labels(self, numbers: np.ndarray) -> np.ndarray:
        """The first label of each record, (N,) float32, without reading their images."""
        offsets = self.find(numbers)
        words, at = np.memmap(self.path, '<u4', 'r', shape=self.size // WORD), offsets // WORD
        lengths = (words[at + 1] & MAX_LENGTH).astype(np.int64)
        if (wrong := (words[at] != MAGIC) | (offsets + 2 * WORD + lengths > self.size)).any():
            self.read(numbers[[wrong.argmax()]])         # it says what is wrong
        if (lengths < HEADER.size).any():
            unpack(b'', f'{self.path}: record {numbers[(lengths < HEADER.size).argmax()]}')
        counts = words[at + 2].astype(np.int64)
        if (wrong := HEADER.size + counts * WORD > lengths).any():
            unpack(self.read(numbers[[wrong.argmax()]])[0], f'{self.path}: record {numbers[wrong.argmax()]}')
        return np.asarray(words[at + np.where(counts > 0, 2 + HEADER.size // WORD, 3)]).view('<f4')


def unpack(record: bytes, name: str) -> tuple[np.ndarray, bytes]:
    """Labels (L,) float32, one or more, and the encoded image of a record."""
    if len(record) < HEADER.size:
        raise InputError(f'{name}: expected at least {HEADER.size} bytes, got {len(record)}')
    number, label, _, _ = HEADER.unpack_from(record)
    if not number:
        return np.array([label], np.float32), record[HEADER.size:]
    if len(record) < HEADER.size + number * WORD:
        raise InputError(f'{name}: {number} labels do not fit into its {len(record)} bytes')
    return np.frombuffer(record, '<f4', number, HEADER.size), record[HEADER.size + number * WORD:]


@DATASETS.register_module()
class RecordFaces(Dataset):
    """``data_root/train.rec`` with ``train.idx``: MS1M, Glint360K, CASIA-WebFace as InsightFace packs them.

    Record 0 has no image; its first label is the number that follows the last image's, whose numbers begin with 1. Where
    record 0 is an image itself, all records are. An image's class is its own (first) label. Batches are those of
    :class:`ImageArrays`.

    Args:
        image_size: side. Images of another size (the files hold 112) are resized, bilinear with antialiasing.
        cache_dir: decode all images once, into a ``.npy`` in this folder (37,632 bytes an image of 112×112 px), memory-mapped
            from then on. Otherwise batches are decoded as they come: use workers.

    Raises:
        InputError: damaged or foreign files, before training where the index shows it; one line.
    """

    def __init__(self, data_root: str, image_size: int = 112, cache_dir: str | None = None):
        path = Path(data_root) / 'train.rec'
        self.file, self.image_size = RecordFile(path), image_size
        meta, image = unpack(self.file.read(np.array([0]))[0], f'{path}: record 0')
        if not image and not 1 < meta[0] <= len(self.file.numbers):
            raise InputError(f'{path}: record 0 says that the images end before number {meta[0]:g}, but the index has '
                             f'{len(self.file.numbers):,} records')
        self.numbers = self.file.numbers if image else np.arange(1, int(meta[0]))
        labels = self.file.first_labels(self.numbers)
        if (wrong := ~((labels >= 0) & (labels < MAX_CLASSES))).any():
            raise InputError(f'{path}: record {self.numbers[wrong.argmax()]} has the label {labels[wrong.argmax()]:g}')
        labels = labels.astype(np.int64)
        self.labels, self.images = torch.from_numpy(labels), None
        self.metainfo = dict(classes=tuple(map(str, range(labels.max() + 1))))
        if cache_dir is not None:
            place = fingerprint([str(path.resolve())])
            mark = fingerprint_of_images([str(self.file.size), *map(str, self.file.offsets)])
            cache = Path(cache_dir) / f'mmcrrcd-{path.parent.resolve().name}-{image_size}px-{place}-{mark}.npy'
            self.images = torch.from_numpy(load_decoded(cache, self.numbers, self._decode, image_size, str(path)))

    def _decode(self, numbers: np.ndarray) -> np.ndarray:
        """(N, side, side, 3) uint8 of the records with these numbers."""
        name = f'{self.file.path}: record'
        contents = [unpack(record, f'{name} {number}')[1] for record, number in zip(self.file.read(numbers), numbers)]
        return decode_encoded(list(zip(contents, numbers)), self.image_size, name)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, i: int) -> dict:
        return self.__getitems__([i])

    def __getitems__(self, indices: list[int]) -> dict:
        index = torch.as_tensor(indices)
        images = torch.from_numpy(self._decode(self.numbers[index.numpy()])) if self.images is None else self.images[index]
        return dict(inputs=images.permute(0, 3, 1, 2), labels=self.labels[index], index=index)
