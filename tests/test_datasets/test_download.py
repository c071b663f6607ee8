"""Files and archives that are fetched when they are missing: from a folder that stands in for the network."""
import hashlib
import shutil
import tarfile
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from urllib.error import URLError

import pytest
from mmcrrcd.datasets import download
from mmcrrcd.datasets.download import fetch
from torch.distributed import HashStore
from torchvision.datasets.utils import check_integrity

URL = 'http://somewhere.org/data/'


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder with a file and an archive, behind URL; it counts what is fetched."""
    folder = tmp_path / 'site'
    folder.mkdir()
    (folder / 'digits.mat').write_bytes(b'digits')
    (folder / 'set').mkdir()
    (folder / 'set' / 'images.bin').write_bytes(b'images')
    with tarfile.open(folder / 'set.tar.gz', 'w:gz') as archive:
        archive.add(folder / 'set', 'set')
    fetched = []

    def download_url(url, root, filename, md5):          # what torchvision's does, without a network
        Path(root).mkdir(parents=True, exist_ok=True)
        if check_integrity(Path(root) / filename, md5):
            return
        fetched.append(url)
        time.sleep(0.1)                                   # for others to come in between, if they can
        shutil.copy(folder / url.removeprefix(URL), Path(root) / filename)
        if not check_integrity(Path(root) / filename, md5):
            raise RuntimeError('File not found or corrupted.')

    monkeypatch.setattr(download, 'download_url', download_url)
    return folder, fetched


def test_a_file_is_fetched_once(site, tmp_path):
    folder, fetched = site
    target = tmp_path / 'data' / 'digits.mat'
    for _ in range(2):
        fetch(target, URL + 'digits.mat', md5(folder / 'digits.mat'), download=True)
    assert target.read_bytes() == b'digits' and fetched == [URL + 'digits.mat']
    assert sorted(path.name for path in target.parent.iterdir()) == ['.download.lock', 'digits.mat']


def test_an_archive_is_fetched_and_unpacked(site, tmp_path):
    folder, fetched = site
    target = tmp_path / 'data' / 'set'
    for _ in range(2):
        fetch(target, URL + 'set.tar.gz', md5(folder / 'set.tar.gz'), download=True)
    assert (target / 'images.bin').read_bytes() == b'images' and fetched == [URL + 'set.tar.gz']
    assert sorted(path.name for path in target.parent.iterdir()) == ['.download.lock', 'set', 'set.tar.gz']


def test_an_archive_that_lies_there_needs_no_network(site, tmp_path):
    folder, fetched = site
    target = tmp_path / 'data' / 'set'
    target.parent.mkdir()
    shutil.copy(folder / 'set.tar.gz', target.parent)
    fetch(target, URL + 'set.tar.gz', md5(folder / 'set.tar.gz'), download=True)
    assert (target / 'images.bin').read_bytes() == b'images' and not fetched


def test_several_trainings_that_miss_it_fetch_it_once(site, tmp_path):
    folder, fetched = site
    target, checksum = tmp_path / 'data' / 'set', md5(folder / 'set.tar.gz')
    with ThreadPoolExecutor(4) as pool:                  # the lock is of the process's files, so it holds threads, too
        list(pool.map(lambda _: fetch(target, URL + 'set.tar.gz', checksum, download=True), range(4)))
    assert fetched == [URL + 'set.tar.gz'] and (target / 'images.bin').read_bytes() == b'images'


def test_a_zip_of_the_folder_is_unpacked(site, tmp_path):
    folder, _ = site
    with zipfile.ZipFile(folder / 'set.zip', 'w') as archive:
        archive.write(folder / 'set' / 'images.bin', 'set/images.bin')
    fetch(tmp_path / 'data' / 'set', URL + 'set.zip', md5(folder / 'set.zip'), download=True)
    assert (tmp_path / 'data' / 'set' / 'images.bin').read_bytes() == b'images'


@pytest.mark.parametrize('name, target', [('digits.mat', 'digits.mat'), ('set.tar.gz', 'set')])
def test_what_is_not_the_published_file_is_not_taken(site, tmp_path, name, target):
    with pytest.raises(FileNotFoundError) as error:
        fetch(tmp_path / target, URL + name, md5='0' * 32, download=True)
    assert 'cannot be downloaded (File not found or corrupted.)' in str(error.value)
    assert not (tmp_path / target).exists()


def test_a_death_while_unpacking_leaves_no_folder(site, tmp_path, monkeypatch):
    folder, _ = site

    def killed(archive, to):
        (Path(to) / 'set').mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(download, 'extract_archive', killed)
    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path / 'data' / 'set', URL + 'set.tar.gz', md5(folder / 'set.tar.gz'), download=True)
    assert not (tmp_path / 'data' / 'set').exists()


@pytest.mark.parametrize('name, target, what', [('digits.mat', 'digits.mat', 'put'), ('set.tar.gz', 'set', 'unpack')])
def test_without_a_network_one_line_says_what_to_do(tmp_path, monkeypatch, name, target, what):
    def unreachable(*_):
        raise URLError('no route')

    monkeypatch.setattr(download, 'download_url', unreachable)
    target = tmp_path / target
    with pytest.raises(FileNotFoundError) as error:
        fetch(target, URL + name, '0' * 32, download=True)
    assert str(error.value) == (f'{target} is missing, and {URL}{name} cannot be downloaded (no route); '
                                f'{what} {URL}{name} into {tmp_path}')
    with pytest.raises(FileNotFoundError) as error:
        fetch(target, URL + name, '0' * 32, download=False)
    assert str(error.value) == f'{target} is missing; set download=True, or {what} {URL}{name} into {tmp_path}'


def test_a_folder_without_one_of_its_files_is_filled(site, tmp_path):
    folder, _ = site
    target = tmp_path / 'data' / 'set'
    target.mkdir(parents=True)
    (target / 'own.txt').touch()
    with pytest.raises(FileNotFoundError, match='images.bin is missing; set download=True, or unpack'):
        fetch(target, URL + 'set.tar.gz', md5(folder / 'set.tar.gz'), False, target / 'images.bin')
    fetch(target, URL + 'set.tar.gz', md5(folder / 'set.tar.gz'), True, target / 'images.bin')
    assert sorted(path.name for path in target.iterdir()) == ['images.bin', 'own.txt']


def test_others_wait_for_the_first_process_however_long(monkeypatch):
    store, order, here = HashStore(), [], threading.local()
    store.set_timeout(timedelta(milliseconds=100))       # what a barrier would end after
    monkeypatch.setattr(download.distributed_c10d, '_get_default_store', lambda: store)
    monkeypatch.setattr(download, 'get_world_size', lambda: 3)
    monkeypatch.setattr(download, 'is_main_process', lambda: here.rank == 0)
    monkeypatch.setattr(download, 'TIMES', iter([7, 7, 7]))

    def process(rank: int) -> None:
        here.rank = rank
        if rank == 0:
            time.sleep(0.5)
            order.append('done')
        download.wait_for_first()
        order.append(rank)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(process, (1, 2, 0)))
    assert order[0] == 'done' and sorted(order[1:]) == [0, 1, 2]
