"""Real images of the reference material beside the checkout; tests that ask for them are skipped where it is missing.

And what takes longer than a tiny training is left out: configs are written as they come, without yapf's layout, nobody waits
until files are on the disk, and the latency of an exported student is the median of a few calls.
"""
import os
import tarfile
from pathlib import Path

import mmengine.config.config
import pytest
from utils import shared_file

from mmcrrcd.deployment import measures


@pytest.fixture(scope='session', autouse=True)
def without_waiting():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mmengine.config.config, 'FormatCode', lambda text, **_: (text, False))
        patch.setattr(os, 'fsync', lambda handle: None)
        patch.setattr(measures, 'RUNS', 20)
        yield


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
