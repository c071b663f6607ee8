"""A teacher's answers on disk: embedding and logits for each view of each training image, in float16.

A folder of them is a teacher. It holds ``embedding.npy`` and ``logits.npy`` (views, images, width), the linear layer between
the two where there is one, and ``manifest.json``. That says of what the answers are, and all checksums. No file is ever
unpickled.
"""
import errno
import json
import os
import shutil
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmcrrcd.errors import InputError
from mmcrrcd.files import sync_folder, write_whole
from mmcrrcd.structures import NetworkOutput

from .fingerprint import digest

FORMAT = 1
BLOCK = 500                  # images of one view that are computed, written and checked together
SAMPLE = 16                  # blocks whose checksums are compared each time a folder is opened
ARRAYS = ('embedding', 'logits')
CLASSIFIER = ('weight', 'bias')
ANEW = 'delete the folder, and the answers are computed anew'            # what helps where one is damaged


def rows_of(block: int, num_images: int) -> tuple[int, int, int]:
    """View, first image and end of a block."""
    view, place = divmod(block, -(-num_images // BLOCK))
    return view, place * BLOCK, min((place + 1) * BLOCK, num_images)


def number_of_blocks(shape: dict) -> int:
    """That a cache of this shape has."""
    return shape['views'] * -(-shape['images'] // BLOCK)


def array_shape(shape: dict, name: str) -> tuple[int, int, int] | None:
    """(views, images, width) of an array; None where the teacher does not give it."""
    return None if shape[name] is None else (shape['views'], shape['images'], shape[name])


def size_in_bytes(shape: dict) -> int:
    """Of both arrays together."""
    return sum(2 * int(np.prod(array_shape(shape, name))) for name in ARRAYS if shape[name])


class CacheWriter:
    """A folder of answers while it is being built, beside its final place, as ``<folder>.part``.

    Killed at any moment it goes on where it was. A block counts once it stands, with its checksum, in ``blocks.txt``, and its
    numbers are read again before that is believed. Several processes may write different blocks.

    Args:
        folder: the final place.
        about: what the answers are of, as JSON; a part of something else is thrown away.
        shape: numbers of ``views`` and ``images``, widths of ``embedding`` and ``logits`` (None where there are none), and
            ``image_size``.
        classifier: weight (classes, D) and bias of the teacher's last layer, None where it is no linear one.

    Raises:
        OSError: no room, or no permission.
    """

    def __init__(self, folder: Path, about: dict, shape: dict, classifier: tuple[Tensor, Tensor] | None = None):
        self.folder, self.part = folder, folder.with_name(f'{folder.name}.part')
        self.head = dict(format=FORMAT, about=about, shape=shape, fingerprint=digest([FORMAT, about, shape]))
        self.shape = shape
        self.classifier = [value.detach().cpu().float().numpy() for value in classifier or ()]

    def prepare(self) -> None:
        """Makes the files at their full size, so that a disk without room for them says so now. For the first process.

        So does what is in the way of the final place: the answers are not computed first.
        """
        if os.path.lexists(self.folder) and (self.folder.is_symlink() or not self.folder.is_dir()
                                             or os.path.ismount(self.folder) or any(self.folder.iterdir())):
            raise OSError(errno.EEXIST, 'it is there, and is no empty folder')
        head = self.part / 'head.json'
        if self.part.is_symlink() or self.part.is_file():
            self.part.unlink()
        foreign = self.part.exists() and any(each.is_symlink() or not each.is_file() for each in self.part.iterdir())
        known = head.is_file() and head.read_bytes() == json.dumps(self.head).encode()
        if foreign or self.part.exists() and not (known and self._whole()):
            shutil.rmtree(self.part)                         # links are none of ours, and none is followed
        if self.part.exists():
            return
        self.part.mkdir(parents=True)
        try:
            self._make()
        except OSError:                                      # nothing to go on with
            shutil.rmtree(self.part, ignore_errors=True)
            raise
        write_whole(head, json.dumps(self.head))             # last: a folder without it is begun again

    def _make(self) -> None:
        for name in ARRAYS:
            if shape := array_shape(self.shape, name):
                with open(self.part / f'{name}.npy', 'wb') as file:
                    np.lib.format.write_array_header_1_0(file, dict(descr='<f2', fortran_order=False, shape=shape))
                    size = file.tell() + 2 * int(np.prod(shape))
                    file.flush()
                    if hasattr(os, 'posix_fallocate'):
                        os.posix_fallocate(file.fileno(), 0, size)
                    else:
                        file.truncate(size)
        (self.part / 'blocks.txt').touch()

    def _whole(self) -> bool:
        """Have the arrays the form that they were made in?"""
        try:
            arrays = {name: np.lib.format.open_memmap(self.part / f'{name}.npy', mode='r')
                      for name in ARRAYS if self.shape[name]}
        except (OSError, ValueError):
            return False
        return (self.part / 'blocks.txt').exists() and all(
            array.shape == array_shape(self.shape, name) and array.dtype == np.float16 for name, array in arrays.items())

    def open(self) -> None:
        """Opens the files that :meth:`prepare` has made. For each process."""
        self.arrays = {name: np.lib.format.open_memmap(self.part / f'{name}.npy', mode='r')
                       for name in ARRAYS if self.shape[name]}
        self.files = {name: os.open(self.part / f'{name}.npy', os.O_WRONLY) for name in self.arrays}
        self.log = os.open(self.part / 'blocks.txt', os.O_WRONLY | os.O_APPEND)

    def checksum(self, block: int) -> int:
        """Of a block's numbers as they lie on disk."""
        view, first, end = rows_of(block, self.shape['images'])
        return checksum(array[view, first:end] for array in self.arrays.values())

    def finished(self) -> dict[int, int]:
        """Checksums of the blocks that are there."""
        found = {}
        for line in (self.part / 'blocks.txt').read_text(errors='replace').splitlines():
            words = line.split()
            if len(words) == 3 and words[2] == 'end' and all(word.isdecimal() for word in words[:2]):
                found[int(words[0])] = int(words[1])
        return {block: crc for block, crc in found.items()
                if block < number_of_blocks(self.shape) and self.checksum(block) == crc}

    def write(self, block: int, output: NetworkOutput) -> None:
        """Stores the answers to a block's images, (n, width) each.

        Raises:
            InputError: they are not finite, or too large for float16.
        """
        view, first, _ = rows_of(block, self.shape['images'])
        parts = []
        for name, file in self.files.items():
            values = getattr(output, name).detach().to('cpu', torch.float16)
            if not values.isfinite().all():
                raise InputError(f"the teacher's {name} are not finite in float16: the cache cannot hold them")
            parts.append(values.numpy())
            array = self.arrays[name]
            place = array.offset + 2 * array.shape[2] * (view * array.shape[1] + first)
            content = memoryview(parts[-1].tobytes())
            while content:                                   # a full disk may take a part of it first
                written = os.pwrite(file, content, place)
                content, place = content[written:], place + written
        os.write(self.log, f'{block} {checksum(parts)} end\n'.encode())

    def close(self) -> None:
        """Writes what is buffered to disk and closes the files."""
        for file in [*self.files.values(), self.log]:
            os.fsync(file)
            os.close(file)

    def finish(self) -> None:
        """Puts the manifest in and the folder in its place, when all blocks are there. For the first process."""
        blocks = self.finished()
        for name, value in zip(CLASSIFIER, self.classifier):
            np.save(self.part / f'classifier_{name}.npy', value, allow_pickle=False)
        manifest = self.head | dict(blocks=[blocks[block] for block in range(number_of_blocks(self.shape))],
                                    classifier=checksum(self.classifier) if self.classifier else None)
        write_whole(self.part / 'manifest.json', json.dumps(manifest | dict(seal=digest(manifest)), indent=1))
        for name in ('blocks.txt', 'head.json'):
            (self.part / name).unlink()
        sync_folder(self.part)
        os.replace(self.part, self.folder)
        sync_folder(self.folder.parent)


def checksum(parts: Iterable[np.ndarray]) -> int:
    """CRC-32 of arrays, one after the other."""
    crc = 0
    for part in parts:
        crc = zlib.crc32(np.ascontiguousarray(part), crc)
    return crc


def read_manifest(folder: Path) -> dict:
    """The manifest of a folder of answers.

    Raises:
        InputError: there is none, or it is damaged, changed, or of another version of the format.
    """
    file = folder / 'manifest.json'
    if not file.is_file():
        raise InputError(f"{folder} holds no teacher's answers: {file.name} is missing")
    try:
        manifest = json.loads(file.read_text())
        version, seal = manifest['format'], manifest.pop('seal')
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise InputError(f'{file} is damaged ({type(error).__name__}): {ANEW}') from error
    if version != FORMAT:
        raise InputError(f'{file} is of format {version}, this version reads {FORMAT}: {ANEW}')
    if seal != digest(manifest):
        raise InputError(f'{file} was changed by hand or is damaged: {ANEW}')
    return manifest


class TeacherCache:
    """Answers that were computed before, from a folder; checked when it is opened.

    Args:
        folder: what ``tools/cache_teacher.py`` made.

    ``about`` says what the answers are of, ``shape`` how many there are.

    Raises:
        InputError: the folder is none, or damaged; one line.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        manifest = read_manifest(self.folder)
        self.about, self.shape, self.blocks = manifest['about'], manifest['shape'], manifest['blocks']
        self.fingerprint, self._classifier = manifest['fingerprint'], manifest['classifier']
        self.arrays = {name: self._open(name) for name in ARRAYS if self.shape[name]}
        self._check_blocks()
        self.tensors = {name: torch.from_numpy(array) for name, array in self.arrays.items()}
        self._placed = None

    @property
    def num_images(self) -> int:
        """The number of training images."""
        return self.shape['images']

    @property
    def views(self) -> int | str:
        """As in the settings: a number, or 'all'."""
        return self.about['views']

    def _open(self, name: str) -> np.ndarray:
        file, wanted = self.folder / f'{name}.npy', array_shape(self.shape, name)
        try:
            if not file.is_file():                           # a pipe would be waited for
                raise OSError('it is no file')
            array = np.lib.format.open_memmap(file, mode='c')        # writable, as torch wants it; the file stays as it is
        except (ValueError, OSError) as error:
            raise InputError(f'{file} is missing or damaged ({error}): {ANEW}'.replace('\n', ' ')) from error
        if array.shape != wanted or array.dtype != np.float16 or not array.flags.c_contiguous:
            raise InputError(f'{file} holds {array.shape} {array.dtype}, and the manifest says {wanted} float16: {ANEW}')
        return array

    def _check_blocks(self) -> None:
        number = len(self.blocks)
        for block in {round(i * (number - 1) / (SAMPLE - 1)) for i in range(SAMPLE)}:
            view, first, end = rows_of(block, self.num_images)
            if checksum(array[view, first:end] for array in self.arrays.values()) != self.blocks[block]:
                raise InputError(f'{self.folder}: the answers of view {view}, images {first} to {end - 1}, are damaged: delete '
                                 'the folder, and they are computed anew')

    def classifier(self) -> tuple[Tensor, Tensor] | None:
        """Weight (classes, D) and bias of the layer that made the logits of the embedding; None if it is unknown.

        Raises:
            InputError: its files are damaged.
        """
        if self._classifier is None:
            return None
        files = [self.folder / f'classifier_{name}.npy' for name in CLASSIFIER]
        try:
            if not all(file.is_file() for file in files):
                raise OSError('it is no file')
            values = [np.load(file, allow_pickle=False) for file in files]
        except (ValueError, OSError) as error:
            raise InputError(f'{files[0]} or {files[1].name} is missing or damaged: {ANEW}') from error
        if checksum(values) != self._classifier:
            raise InputError(f'{files[0]} or {files[1].name} is damaged: {ANEW}')
        return tuple(map(torch.from_numpy, values))

    def trial_output(self, number: int) -> NetworkOutput:
        """Zeros in the form of the answers to ``number`` images."""
        values = {name: torch.zeros(number, self.shape[name]) if self.shape[name] else None for name in ARRAYS}
        return self._output(values)

    def place(self, device: torch.device) -> torch.device:
        """Where answers for ``device`` are looked up: there, if it is the CPU or they take less than half of its free memory.
        Else on the CPU, from where they are sent.
        """
        if device.type == 'cpu' or self._placed is not None:
            return self._placed or device
        fits = size_in_bytes(self.shape) < torch.cuda.mem_get_info(device)[0] / 2
        self._placed = device if fits else torch.device('cpu')
        self.tensors = {name: tensor.to(self._placed) for name, tensor in self.tensors.items()}
        return self._placed

    def __call__(self, view: Tensor, index: Tensor, device: torch.device) -> NetworkOutput:
        """The answers to the images ``index`` in their ``view``, (N,) both, in float32 on ``device``.

        ``view`` and ``index`` are where :meth:`place` says.
        """
        values = dict.fromkeys(ARRAYS)
        for name, tensor in self.tensors.items():
            found = tensor[view, index]
            if found.device != device:
                found = found.pin_memory().to(device, non_blocking=True)
            values[name] = found.float()
        return self._output(values)

    def _output(self, values: dict[str, Tensor | None]) -> NetworkOutput:
        return NetworkOutput((), values['embedding'], values['logits'], tuple(self.shape['image_size']))
