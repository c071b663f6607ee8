"""Real images of the reference material beside the checkout; tests that ask for them are skipped where it is missing."""
import tarfile
from pathlib import Path

import pytest

from utils import shared_file


def unpacked(archive: Path, root: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(root, filter='data')
    return root


@pytest.fixture(scope='session')
def lfw(tmp_path_factory) -> Path:
    """The folder of a folder for each person."""
    return unpacked(shared_file('data', 'lfw', 'lfw.tar'), tmp_path_factory.mktemp('lfw')) / 'lfw'


@pytest.fixture(scope='session')
def lfw_pairs_file() -> Path:
    return shared_file('data', 'lfw', 'pairs.txt')


@pytest.fixture(scope='session')
def orl(tmp_path_factory) -> Path:
    return unpacked(shared_file('data', 'orl', 'orl.tar'), tmp_path_factory.mktemp('orl')) / 'orl'
