"""Image data sets as arrays: CIFAR from files in the official layout, and what happens with damaged ones."""
import json
import os
import pickle
import runpy
import struct
import tarfile
from pathlib import Path
from urllib.error import URLError

import mmcrrcd.datasets.download as download_module
import numpy as np
import pytest
import torch
from mmengine.device import get_device
from mmcrrcd.datasets import CIFAR10Arrays, CIFAR100Arrays, ImageArrays, whole_batch
from mmcrrcd.datasets.images import read_pickle
from mmcrrcd.errors import InputError
from mmpretrain.datasets import CIFAR100
from torch.utils.data import DataLoader
from utils import shared_file

CLASSES = [f'class {i}' for i in range(100)]


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2's ``str``, as in the official files."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_bytes(self, obj):
        self.write(b'T' + struct.pack('<i', len(obj)) + obj)          # opcode BINSTRING
        self.memoize(obj)

    dispatch[bytes] = save_bytes


def dump(path: Path, content) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'wb') as file:
        Python2Pickler(file, protocol=2).dump(content)
    return path


def write_cifar100(root: Path, data: np.ndarray, labels: list[int], names: list[str] = CLASSES, split: str = 'test') -> Path:
    folder = root / 'cifar-100-python'
    dump(folder / split, {b'filenames': [b'one.png'] * len(data), b'batch_label': b'testing batch 1 of 1', b'data': data,
                          b'fine_labels': labels, b'coarse_labels': [label // 5 for label in labels]})
    dump(folder / 'meta', {b'fine_label_names': [name.encode() for name in names], b'coarse_label_names': [b'one']})
    return folder


def one_line(error) -> str:
    assert '\n' not in str(error.value)
    return str(error.value)


@pytest.fixture(scope='module')
def cifar100(tmp_path_factory):
    """A test split of 10,000 random images, its rows and its labels."""
    root = tmp_path_factory.mktemp('cifar100')
    rng = np.random.default_rng(0)
    data = rng.integers(256, size=(10_000, 3072), dtype=np.uint8)
    labels = rng.integers(100, size=10_000).tolist()
    write_cifar100(root, data, labels)
    return root, data, labels


def test_cifar100_reads_planes_of_red_green_and_blue(cifar100):
    root, data, labels = cifar100
    dataset = CIFAR100Arrays(root, split='test', download=False)
    assert len(dataset) == 10_000
    assert dataset.metainfo['classes'] == tuple(CLASSES)
    batch = dataset.__getitems__([7, 0, 9_999])
    assert batch['inputs'].shape == (3, 3, 32, 32) and batch['inputs'].dtype == torch.uint8
    for i, row in enumerate((7, 0, 9_999)):
        assert batch['labels'][i] == labels[row] and batch['index'][i] == row
        for channel, y, x in ((0, 0, 0), (1, 0, 5), (2, 31, 30), (0, 12, 31)):
            assert batch['inputs'][i, channel, y, x] == data[row, 1024 * channel + 32 * y + x]
    assert batch['labels'].dtype == batch['index'].dtype == torch.int64


def test_mmpretrain_reads_the_same_images_and_labels(cifar100):
    root, _, _ = cifar100

    class AnyChecksum(CIFAR100):
        train_list, test_list = [], [['test', None]]

    piped = AnyChecksum(data_root=str(root), split='test', download=False, pipeline=[])
    batch = CIFAR100Arrays(root, split='test', download=False).__getitems__(range(0, 10_000, 1_000))
    for i in range(10):
        sample = piped[1_000 * i]
        assert np.array_equal(sample['img'], batch['inputs'][i].permute(1, 2, 0).numpy())
        assert sample['gt_label'] == batch['labels'][i] and sample['sample_idx'] == batch['index'][i]


def test_mmpretrain_takes_no_files_of_another_checksum(cifar100):
    """What docs/mmpretrain.md says of the mmpretrain pipeline."""
    with pytest.raises(RuntimeError, match='Cannot find CIFAR100 dataset'):
        CIFAR100(data_root=str(cifar100[0]), split='test', download=False)


@pytest.mark.slow
def test_cifar10_joins_its_five_files_in_order(tmp_path):
    folder = tmp_path / 'cifar-10-batches-py'
    for i in range(1, 6):
        dump(folder / f'data_batch_{i}', {b'data': np.full((10_000, 3072), i, np.uint8), b'labels': [2 * i - 1] * 10_000})
    dump(folder / 'batches.meta', {b'label_names': [b'%d' % i for i in range(10)]})
    dataset = CIFAR10Arrays(tmp_path, download=False)
    assert len(dataset) == 50_000
    batch = dataset.__getitems__([0, 9_999, 10_000, 25_000, 49_999])
    assert batch['inputs'].float().mean((1, 2, 3)).tolist() == [1, 1, 2, 3, 5]
    assert batch['labels'].tolist() == [1, 1, 3, 5, 9]
    assert dataset.metainfo['classes'] == tuple('0123456789')


def test_the_real_files(tmp_path):
    shared_file('data', 'cifar100', 'train_00.webp')
    images, labels = runpy.run_path(str(shared_file('data', 'unpack.py')))['cifar100_arrays']('test')
    names = json.loads(shared_file('data', 'cifar100', 'classes.json').read_text())
    write_cifar100(tmp_path, np.ascontiguousarray(images.transpose(0, 3, 1, 2)).reshape(10_000, 3072), labels.tolist(), names)
    dataset = CIFAR100Arrays(tmp_path, split='test', download=False)
    assert np.array_equal(dataset.images.numpy(), images)
    assert dataset.labels.bincount().tolist() == [100] * 100
    assert dataset.metainfo['classes'] == tuple(names)
    # the published means of the training split are .5071, .4867, .4408 of 255
    assert dataset.images.float().mean((0, 1, 2)).div(255).tolist() == pytest.approx([.5071, .4867, .4408], abs=5e-3)


def test_loader_returns_whole_batches():
    values = np.arange(10, dtype=np.uint8)
    dataset = ImageArrays(np.broadcast_to(values[:, None, None, None], (10, 4, 6, 3)), values % 3, list('abc'), 'here')
    batches = list(DataLoader(dataset, batch_size=4, collate_fn=whole_batch, shuffle=True,
                              generator=torch.Generator().manual_seed(0)))
    assert [len(batch['index']) for batch in batches] == [4, 4, 2]
    index = torch.cat([batch['index'] for batch in batches])
    assert sorted(index.tolist()) == list(range(10)) and index.tolist() != list(range(10))
    for batch in batches:
        assert batch['inputs'].shape[1:] == (3, 4, 6)
        assert torch.equal(batch['inputs'][:, 0, 0, 0].long(), batch['index'])
        assert torch.equal(batch['labels'], batch['index'] % 3)
    assert dataset[3]['index'].tolist() == [3]


@pytest.mark.parametrize('images, labels, message', [
    (np.zeros((0, 4, 4, 3), np.uint8), [], 'the split is empty'),
    (np.zeros((2, 4, 4, 3), np.uint8), [0], '2 images but 1 labels'),
    (np.zeros((2, 4, 4, 3), np.uint8), [0, 3], 'labels go from 0 to 3, but there are 3 classes'),
    (np.zeros((2, 4, 4, 3), np.uint8), [-1, 2], 'labels go from -1 to 2, but there are 3 classes'),
    (np.zeros((2, 3, 4, 4), np.uint8), [0, 1], 'expected images (N, H, W, 3) uint8, got (2, 3, 4, 4) uint8'),
    (np.zeros((2, 4, 4, 3), np.float32), [0, 1], 'expected images (N, H, W, 3) uint8, got (2, 4, 4, 3) float32'),
])
def test_arrays_that_cannot_be_a_data_set(images, labels, message):
    with pytest.raises(InputError) as error:
        ImageArrays(images, np.array(labels), list('abc'), 'here')
    assert one_line(error) == f'here: {message}'


@pytest.mark.parametrize('data, labels, message', [
    (np.zeros((7, 3072), np.uint8), [1] * 7, '(test): expected 10000 images, got 7'),
    (np.zeros((0, 3072), np.uint8), [], '(test): the split is empty'),
    (np.zeros((7, 3072), np.uint8), [100] * 7, '(test): labels go from 100 to 100, but there are 100 classes'),
    (np.zeros((7, 3072), np.uint8), [1] * 6, '(test): 7 images but 6 labels'),
    (np.zeros((7, 3071), np.uint8), [1] * 7, 'test: expected data (N, 3072), got (7, 3071)'),
])
def test_files_of_other_contents(tmp_path, data, labels, message):
    folder = write_cifar100(tmp_path, data, labels)
    with pytest.raises(InputError) as error:
        CIFAR100Arrays(tmp_path, split='test', download=False)
    assert one_line(error).startswith(str(folder)) and one_line(error).endswith(message)


def test_unknown_split(tmp_path):
    with pytest.raises(InputError, match="split is 'train' or 'test', got 'val'"):
        CIFAR100Arrays(tmp_path, split='val')


def test_missing_files_without_download(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        CIFAR100Arrays(tmp_path, download=False)
    assert one_line(error).startswith(f'{tmp_path / "cifar-100-python" / "train"} is missing; set download=True')
    folder = write_cifar100(tmp_path, np.zeros((7, 3072), np.uint8), [0] * 7)
    (folder / 'meta').unlink()
    with pytest.raises(FileNotFoundError) as error:
        CIFAR100Arrays(tmp_path, split='test', download=False)
    assert one_line(error).startswith(f'{folder / "meta"} is missing')


@pytest.mark.parametrize('error, reason', [
    (URLError('no route'), 'no route'), (ConnectionResetError(104, 'reset by peer'), '[Errno 104] reset by peer'),
    (TimeoutError(), 'TimeoutError'), (RuntimeError('File not found or corrupted.'), 'File not found or corrupted.'),
    (tarfile.ReadError('unexpected end of data'), 'unexpected end of data')])
def test_missing_files_without_a_network(tmp_path, monkeypatch, error, reason):
    def unreachable(*_, **__):
        raise error

    monkeypatch.setattr(download_module, 'download_url', unreachable)
    with pytest.raises(FileNotFoundError) as caught:
        CIFAR100Arrays(tmp_path)
    assert f'cannot be downloaded ({reason}); unpack https://' in one_line(caught)


def test_missing_files_are_downloaded(tmp_path, monkeypatch, cifar100):
    _, data, labels = cifar100
    calls = []

    def get(target, url, md5):
        calls.append((target, url.rsplit('/', 1)[1], md5))
        write_cifar100(target.parent, data, labels)

    monkeypatch.setattr(download_module, 'get', get)
    for _ in range(2):                                   # the second time they are there
        assert len(CIFAR100Arrays(tmp_path, split='test')) == 10_000
    assert calls == [(tmp_path / 'cifar-100-python', 'cifar-100-python.tar.gz', 'eb9058c3a382ffc7106e4002c42a8d85')]


def test_arrays_of_another_type_are_refused(tmp_path):
    path = dump(tmp_path / 'test', {b'data': np.zeros((1, 3072), np.int64)})
    with pytest.raises(InputError) as error:
        read_pickle(path, 'data')
    assert str(path) in one_line(error) and 'expected an array of uint8, got i8' in one_line(error)


@pytest.mark.parametrize('protocol', (3, 4))
@pytest.mark.parametrize('order', ('C', 'F'))
def test_files_written_by_python_3(tmp_path, protocol, order):
    data = np.arange(24, dtype=np.uint8).reshape(4, 6)
    path = tmp_path / 'test'
    path.write_bytes(pickle.dumps({'data': np.array(data, order=order), 'labels': [1, 2]}, protocol=protocol))
    read, labels = read_pickle(path, 'data', 'labels')
    assert np.array_equal(read, data) and labels == [1, 2]


def test_a_file_without_the_keys_is_named(tmp_path):
    path = dump(tmp_path / 'test', {b'data': np.zeros((1, 3072), np.uint8), b'coarse_labels': [0]})
    with pytest.raises(InputError) as error:
        read_pickle(path, 'data', 'fine_labels')
    assert str(path) in one_line(error) and "KeyError('fine_labels')" in one_line(error)


def test_damaged_files_are_named(tmp_path):
    """Cut anywhere, or with a bit changed, a file loads or gives the one line; nothing else comes out."""
    path = dump(tmp_path / 'test', {b'data': np.zeros((1, 48), np.uint8), b'fine_labels': [0], b'names': [b'a', b'b']})
    whole = path.read_bytes()
    damaged = [whole[:cut] for cut in range(len(whole))]
    damaged += [whole[:i] + bytes([whole[i] ^ bit]) + whole[i + 1:] for i in range(len(whole)) for bit in (1, 2)]
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            read_pickle(path, 'data', 'fine_labels')
        except InputError as error:
            assert '\n' not in str(error) and str(error).startswith(f'{path} is not a readable CIFAR file')
            refused += 1
    assert refused > 1.1 * len(whole)                    # every cut file, and many a changed one


class Runs:
    """Unpickling it calls a function."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@pytest.mark.parametrize('protocol', (0, 2, 4))
@pytest.mark.parametrize('function', (os.mkdir, eval), ids=lambda function: function.__name__)
def test_a_pickle_cannot_run_code(tmp_path, function, protocol):
    made = tmp_path / 'made'
    argument = str(made) if function is os.mkdir else f'__import__("os").mkdir({str(made)!r})'
    path = tmp_path / 'test'
    path.write_bytes(pickle.dumps({'data': [Runs(function, argument)], 'fine_labels': [0]}, protocol=protocol))
    with pytest.raises(InputError) as error:
        read_pickle(path, 'data')
    assert str(path) in one_line(error) and 'refused to load' in one_line(error)
    assert not made.exists()
    pickle.loads(path.read_bytes())                      # it would have run
    assert made.exists()


@pytest.mark.skipif(not Path('/proc/self/feature maps').exists(), reason='looks at the memory maps of the process')
def test_memory_mapped_images_are_read_batch_by_batch(tmp_path):
    images = np.random.default_rng(0).integers(256, size=(20, 4, 4, 3), dtype=np.uint8)
    np.save(tmp_path / 'images.npy', images)
    dataset = ImageArrays(np.load(tmp_path / 'images.npy', mmap_mode='c'), np.arange(20), CLASSES, 'mapped')
    np.testing.assert_array_equal(dataset.__getitems__([3, 7])['inputs'].permute(0, 2, 3, 1), images[[3, 7]])
    with open('/proc/self/feature maps') as maps:
        assert str(tmp_path / 'images.npy') in maps.read()       # still the file, no copy in memory


def test_images_live_where_they_are_told_to():
    images, labels = np.zeros((2, 4, 4, 3), np.uint8), np.arange(2)
    for device, expected in (('cpu', 'cpu'), ('auto', get_device()), ('meta', 'meta')):
        batch = ImageArrays(images, labels, CLASSES, 'here', device).__getitems__([1, 0])
        assert {value.device.type for value in batch.values()} == {expected}


@pytest.mark.parametrize('labels, message', [
    ([[0], [1]], None), ([0, 1], None), (torch.tensor([[0], [1]]), None), (np.array([0., 1.]), None), ((False, True), None),
    ([[1, 0], [0, 1]], 'one-hot'), ([0.5, 1], r'whole numbers, got 0\.5'), ([float('nan'), 0], 'whole numbers, got nan'),
    ([np.inf, 0], 'whole numbers, got inf'), (['0', '1'], 'whole numbers, got <U1'), ([[0], [0, 1]], 'several lengths'),
    (np.array(1), r'one class for each image, \(N,\), got \(\)'),
    ([0, None], 'whole numbers, got object'), ([0, 1, 1], '2 images but 3 labels'), ([0, 2], 'labels go from 0 to 2')])
def test_labels_of_many_kinds(labels, message):
    images = np.zeros((2, 4, 4, 3), np.uint8)
    if message is None:
        batch = ImageArrays(images, labels, ['a', 'b'], 'mine').__getitems__([0, 1])
        assert batch['labels'].tolist() == [0, 1] and batch['labels'].dtype == torch.int64
        return
    with pytest.raises(InputError, match=message) as error:
        ImageArrays(images, labels, ['a', 'b'], 'mine')
    assert '\n' not in str(error.value)
