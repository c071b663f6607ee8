"""Images decoded once: into a memory-mapped file that is checked against its sources, or in blocks without one."""
import errno
import hashlib
import logging
import os
import shutil
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from mmengine.dist import is_main_process
from mmengine.logging import print_log
from rich.console import Console
from rich.progress import track

from mmcrrcd.errors import InputError
from mmcrrcd.files import clear_dead, whole_file

from .download import wait_for_first
from .read_image import READER, read_image

BLOCK = 500                                              # images decoded in one piece
WORTH_PROCESSES = 5_000                                  # images


def decode_files(files: Sequence[Path], side: int) -> np.ndarray:
    """(N, side, side, 3) uint8 RGB."""
    images = np.empty((len(files), side, side, 3), np.uint8)
    for image, path in zip(images, files):
        image[:] = read_image(path, side=side)
    return images


def decode_encoded(items: Sequence[tuple[bytes, int]], side: int, name: str) -> np.ndarray:
    """(N, side, side, 3) uint8 RGB of encoded images, each with the number that is said behind ``name`` in an error."""
    images = np.empty((len(items), side, side, 3), np.uint8)
    for image, (content, number) in zip(images, items):
        image[:] = read_image(content, f'{name} {number}', side)
    return images


def in_order(pool, function: Callable, blocks: Iterable, ahead: int) -> Iterator:
    """``pool.imap`` that works on ``ahead`` blocks at most, so that a slow reader does not fill the memory."""
    waiting = deque()
    for block in blocks:
        waiting.append(pool.apply_async(function, (block,)))
        if len(waiting) == ahead:
            yield waiting.popleft().get()
    while waiting:
        yield waiting.popleft().get()


def decode_blocks(items: Sequence, decode: Callable[[Sequence], np.ndarray], name: str) -> Iterator[np.ndarray]:
    """``decode`` of all items, in blocks; in several processes where that pays. Shows the progress on stderr."""
    blocks = [items[i:i + BLOCK] for i in range(0, len(items), BLOCK)]
    cores = len(os.sched_getaffinity(0)) if sys.platform == 'linux' else 1
    processes = min(8, cores) if len(items) >= WORTH_PROCESSES else 1
    # Forked, as a data loader's workers are: a new interpreter would take longer to start than its part of the work.
    quiet = dict(initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN))    # Ctrl-C is the parent's to say
    with get_context('fork').Pool(processes, **quiet) if processes > 1 else nullcontext() as pool:
        decoded = in_order(pool, decode, blocks, 2 * processes) if pool else map(decode, blocks)
        yield from track(decoded, f'Decoding {name}', total=len(blocks), console=Console(stderr=True))


def fingerprint(lines: Iterable[str]) -> str:
    """Twelve digits that differ where a line does."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f'{line}\n'.encode())
    return digest.hexdigest()[:12]


def fingerprint_of_images(marks: Iterable[str]) -> str:
    """The same of the images' marks and of the reader: pixels of another reader are decoded anew."""
    return fingerprint([READER, *marks])


def open_cache(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The array in the file, memory-mapped; None where there is none, or a damaged one."""
    try:
        if path.exists() and not path.is_file():         # a pipe would be waited for
            raise OSError('it is no file')
        images = np.lib.format.open_memmap(path, mode='c')              # writable, as torch wants it; the file stays as it is
        if images.shape == shape and images.dtype == np.uint8 and images.flags.c_contiguous:
            return images
        reason = f'it holds {images.shape} {images.dtype}'
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        reason = error
    print_log(f'{path} is damaged ({reason}); the images are decoded anew', 'current', logging.WARNING)
    return None


def write_cache(path: Path, shape: tuple[int, ...], blocks: Iterable[np.ndarray]) -> None:
    """Write the blocks into a ``.npy`` that is there whole or not at all. Earlier ones of its name are deleted, and what
    killed processes of this machine left of them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.stem.rsplit('-', 1)[0]
    clear_dead(path.parent, f'{name}-*.npy')
    with whole_file(path) as file:
        np.lib.format.write_array_header_1_0(file, dict(descr='|u1', fortran_order=False, shape=shape))
        for block in blocks:
            file.write(block)
    for earlier in set(path.parent.glob(f'{name}-*.npy')) - {path}:
        earlier.unlink(missing_ok=True)


def check_room(path: Path, size: int) -> None:
    """Raises OSError where ``size`` bytes do not fit on the disk of ``path``, before hours go into them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(path.parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def load_decoded(path: Path, items: Sequence, decode: Callable[[Sequence], np.ndarray], side: int, name: str,
                 in_each_run: bool = False) -> np.ndarray:
    """Images (N, side, side, 3) uint8 from the cache ``path``, ``<name>-<fingerprint>.npy``; the first process makes it.

    Args:
        items: what ``decode`` takes blocks of, one for each image.
        name: of the set, for the progress.
        in_each_run: are they decoded in each run, with a warning, where the file cannot be written?

    Raises:
        InputError: an image cannot be read, or the file cannot be written; one line.
    """
    shape = (len(items), side, side, 3)
    images = open_cache(path, shape)
    if images is None and is_main_process():
        try:
            check_room(path, int(np.prod(shape)))
            write_cache(path, shape, decode_blocks(items, decode, name))
        except OSError as error:                         # a folder of somebody else's, or a full disk
            if not in_each_run:
                raise InputError(f'{path} cannot be written ({error.strerror}); set cache_dir to a folder with room for '
                                 f'{np.prod(shape) / 1e9:.1f} GB') from error
            print_log(f'{path} cannot be written ({error.strerror}); the images are decoded in each run', 'current',
                      logging.WARNING)
    wait_for_first()
    images = open_cache(path, shape) if images is None else images
    if images is None and in_each_run:
        return np.concatenate(list(decode_blocks(items, decode, name)))
    if images is None:
        raise InputError(f'{path}, written by the first process, is not on this machine; set cache_dir to a shared folder')
    return images
