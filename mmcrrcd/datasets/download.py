"""Published files and archives, fetched when they are missing."""
import itertools
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tarfile import TarError
from tempfile import TemporaryDirectory
from zipfile import BadZipFile

from filelock import FileLock
from mmengine.dist import get_world_size, is_main_process
from torch.distributed import distributed_c10d
from torchvision.datasets.utils import download_url, extract_archive

from mmcrrcd.errors import first_line


TIMES = itertools.count()                                # the same in all processes, which come by here in the same order


def wait_for_first() -> None:
    """Of several processes the others wait here until the first has come, however long it takes.

    A barrier would end after ``env_cfg.dist_cfg.timeout``, and to download or decode a large set takes longer. Where the first
    process ends, its launcher ends the others.
    """
    if get_world_size() == 1:
        return
    store, key = distributed_c10d._get_default_store(), f'mmcrrcd: the first process has done part {next(TIMES)}'
    if is_main_process():
        store.set(key, '1')
    while not store.check([key]):
        time.sleep(0.1)


@contextmanager
def one_at_a_time(root: Path) -> Iterator[None]:
    """Trainings of their own that miss the same files take turns in ``root``; who comes later looks whether they are there."""
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / '.download.lock'):
        yield


def fetch(target: Path, url: str, md5: str, download: bool, *parts: Path) -> None:
    """Make sure that ``target`` is there, whole or not at all; with several processes the first one fetches for all.

    Args:
        target: the file that ``url`` publishes, or the folder that the archive there holds.
        md5: of the published file.
        download: may it be fetched? An archive that already lies beside ``target`` is unpacked without a network.
        parts: files in the folder ``target``, each of which must be there.

    Raises:
        FileNotFoundError: it is missing and cannot be had; one line.
    """
    root, name = target.parent, url.rsplit('/', 1)[1]
    where = f'put {url} into {root}' if name == target.name else f'unpack {url} into {root}'
    missing = [path for path in parts or [target] if not path.exists()]
    if missing and not download:
        raise FileNotFoundError(f'{missing[0]} is missing; set download=True, or {where}')
    if missing and is_main_process():
        try:
            with one_at_a_time(root):
                if not all(path.exists() for path in missing):
                    get(target, url, md5)
        except (OSError, RuntimeError, TarError, BadZipFile) as error:   # no network, no room, another checksum, half a file
            reason = first_line(getattr(error, 'reason', error))
            raise FileNotFoundError(f'{missing[0]} is missing, and {url} cannot be downloaded ({reason}); {where}') from error
    wait_for_first()


def get(target: Path, url: str, md5: str) -> None:
    """Downloads and unpacks what :func:`fetch` is asked for."""
    root, name = target.parent, url.rsplit('/', 1)[1]
    if name == target.name:
        download_url(url, root, f'{name}.part', md5)
        os.replace(root / f'{name}.part', target)
    else:
        download_url(url, root, name, md5)
        with TemporaryDirectory(dir=root) as folder:
            extract_archive(root / name, folder)
            if target.exists():                          # of which a part is missing
                shutil.copytree(Path(folder) / target.name, target, dirs_exist_ok=True)
            else:
                os.replace(Path(folder) / target.name, target)
