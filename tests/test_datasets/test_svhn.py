"""SVHN from files in the official form: MATLAB 5, compressed, images by columns, doubles stored as bytes."""
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from mmcrrcd.datasets import SVHNArrays, svhn
from mmcrrcd.errors import InputError
from scipy.io import savemat

UINT8, DOUBLE = 9, 6                                     # MATLAB's classes of arrays
COUNTS = {'train': 7, 'extra': 11, 'test': 5}


def element(kind: int, data: bytes) -> bytes:
    """With its tag; small ones in the short form, as MATLAB writes them."""
    if 0 < len(data) <= 4:
        return struct.pack('<HH4s', kind, len(data), data)
    return struct.pack('<II', kind, len(data)) + data + b'\0' * (-len(data) % 8)


def matrix(name: str, array: np.ndarray, kind: int, compressed: bool = True) -> bytes:
    """An array of bytes, said to be of class ``kind``: MATLAB stores doubles that are whole numbers below 256 like this."""
    flags, shape = struct.pack('<II', kind, 0), struct.pack(f'<{array.ndim}i', *array.shape)
    parts = [element(6, flags), element(5, shape), element(1, name.encode()), element(2, array.tobytes(order='F'))]
    whole = element(14, b''.join(parts))
    if not compressed:
        return whole
    packed = zlib.compress(whole)
    return struct.pack('<II', 15, len(packed)) + packed


def mat_file(*matrices: bytes) -> bytes:
    header = b'MATLAB 5.0 MAT-file, Platform: GLNXA64, Created on: Mon Dec  5 21:18:29 2011'
    return header.ljust(124) + b'\0\1IM' + b''.join(matrices)


def write(path: Path, images: np.ndarray, labels: np.ndarray, **options) -> Path:
    """Images (N, 32, 32, 3) and labels (N,) from 1 to 10."""
    path.write_bytes(mat_file(matrix('X', images.transpose(1, 2, 3, 0), UINT8, **options),
                              matrix('y', labels[:, None], DOUBLE, **options)))
    return path


def digits(number: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(256, size=(number, 32, 32, 3), dtype=np.uint8), (1 + np.arange(number) * 3 % 10).astype(np.uint8)


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(svhn, 'COUNTS', COUNTS)
    for seed, (split, number) in enumerate(COUNTS.items()):
        write(tmp_path / f'{split}_32x32.mat', *digits(number, seed))
    return tmp_path


@pytest.mark.parametrize('split, seed', [('train', 0), ('extra', 1), ('test', 2)])
def test_images_are_upright_and_ten_is_zero(root, split, seed):
    dataset = SVHNArrays(root, split, download=False)
    images, labels = digits(COUNTS[split], seed)
    assert 10 in labels or split != 'extra'
    assert np.array_equal(dataset.images.numpy(), images)
    assert dataset.labels.tolist() == [0 if label == 10 else label for label in labels]
    assert dataset.metainfo['classes'] == tuple('0123456789')
    batch = dataset.__getitems__([3])
    assert batch['inputs'][0, 1, 5, 31] == images[3, 5, 31, 1]


def test_train_and_extra_are_joined_in_that_order(root):
    dataset = SVHNArrays(root, 'train+extra', download=False)
    parts = [SVHNArrays(root, split, download=False) for split in ('train', 'extra')]
    assert len(dataset) == 18
    assert np.array_equal(dataset.images.numpy(), np.concatenate([part.images.numpy() for part in parts]))
    assert dataset.labels.tolist() == sum([part.labels.tolist() for part in parts], [])


@pytest.mark.parametrize('compressed', (True, False))
def test_files_that_scipy_writes(root, compressed):
    images, labels = digits(7, seed=5)
    savemat(root / 'train_32x32.mat', dict(X=images.transpose(1, 2, 3, 0), y=labels[:, None].astype(float), note='text',
                                              cells=np.array(['a', 1], dtype=object)), do_compression=compressed)
    dataset = SVHNArrays(root, 'train', download=False)
    assert np.array_equal(dataset.images.numpy(), images)
    assert dataset.labels.tolist() == (labels % 10).tolist()


def test_arrays_that_are_not_compressed(root):
    images, labels = digits(7, seed=5)
    write(root / 'train_32x32.mat', images, labels, compressed=False)
    assert np.array_equal(SVHNArrays(root, 'train', download=False).images.numpy(), images)


@pytest.mark.parametrize('number, labels, message', [
    (6, None, 'expected X (32, 32, 3, 7) uint8, got (32, 32, 3, 6) uint8; part=True takes fewer'),
    (8, None, 'expected X (32, 32, 3, 7) uint8, got (32, 32, 3, 8) uint8'),
    (7, [1, 2, 3, 4, 5, 6], 'expected 7 labels from 1 to 10, got 6, from 1 to 6'),
    (7, [1, 2, 3, 4, 5, 6, 11], 'expected 7 labels from 1 to 10, got 7, from 1 to 11'),
    (7, [1, 2, 3, 0, 5, 6, 7], 'expected 7 labels from 1 to 10, got 7, from 0 to 7'),
    (7, [], 'expected 7 labels from 1 to 10, got 0, from 0 to 0'),
])
def test_files_of_other_contents(root, number, labels, message):
    images, right = digits(number, seed=0)
    path = write(root / 'train_32x32.mat', images, right if labels is None else np.array(labels, np.uint8))
    with pytest.raises(InputError) as error:
        SVHNArrays(root, 'train', download=False)
    assert str(error.value) == f'{path}: {message}'


def test_a_part_is_taken_where_it_is_asked_for(root):
    images, labels = digits(6, seed=5)
    write(root / 'train_32x32.mat', images, labels)
    dataset = SVHNArrays(root, 'train+extra', part=True, download=False)
    assert len(dataset) == 6 + COUNTS['extra'] and np.array_equal(dataset.images[:6].numpy(), images)
    assert dataset.labels[:6].tolist() == (labels % 10).tolist()
    assert np.array_equal(dataset.images[6:].numpy(), SVHNArrays(root, 'extra', download=False).images.numpy())
    for number in (0, 8):
        write(root / 'train_32x32.mat', *digits(number, seed=5))
        with pytest.raises(InputError, match=r'expected X \(32, 32, 3, 7\) uint8, got'):
            SVHNArrays(root, 'train', part=True, download=False)


def test_damaged_files_end_in_one_line(root, monkeypatch):
    """Cut anywhere, or with a bit changed, a file loads or gives the one line; nothing else comes out."""
    path = root / 'train_32x32.mat'
    monkeypatch.setattr(svhn, 'COUNTS', COUNTS | {'train': 1})
    whole = write(path, np.zeros((1, 32, 32, 3), np.uint8), np.ones(1, np.uint8)).read_bytes()
    damaged = [whole[:cut] for cut in range(len(whole))]
    damaged += [whole[:i] + bytes([whole[i] ^ bit]) + whole[i + 1:] for i in range(len(whole)) for bit in (1, 2, 128)]
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            SVHNArrays(root, 'train', download=False)
        except InputError as error:
            assert str(error).startswith(str(path)) and '\n' not in str(error)
            refused += 1
    assert refused >= len(whole) + (len(whole) - 128)     # every cut file, and many of those changed after the text


def test_another_file_is_named(root):
    (root / 'test_32x32.mat').write_bytes(b'\x89HDF\r\n\x1a\n' + b'\0' * 1000)
    with pytest.raises(InputError) as error:
        SVHNArrays(root, 'test', download=False)
    assert 'not a readable SVHN file' in str(error.value) and 'delete it to download it again' in str(error.value)


def test_missing_files_and_unknown_splits(root):
    with pytest.raises(InputError, match="split is one of 'train', 'extra', 'test', 'train\\+extra', got 'val'"):
        SVHNArrays(root, 'val')
    (root / 'extra_32x32.mat').unlink()
    assert len(SVHNArrays(root, 'train', download=False)) == 7
    with pytest.raises(FileNotFoundError, match='extra_32x32.mat is missing; set download=True, or put http://ufldl'):
        SVHNArrays(root, 'train+extra', download=False)
