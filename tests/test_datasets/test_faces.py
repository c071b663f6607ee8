"""Folders of faces: who is in, the decoded file, and what is wrong with them."""
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmcrrcd.datasets import FaceFolder, PipelineArrays, decoded, whole_batch
from mmcrrcd.errors import InputError
from mmcrrcd.registry import DATASETS
from PIL import Image
from torch.utils.data import DataLoader

PEOPLE = {'Ann': 3, 'Bob': 1, 'Cas': 2, 'Dora': 4}
PAIRS = '2\t1\nAnn\t1\t2\nAnn\t1\tBob\t1\nDora\t1\t2\nDora\t3\tCas\t1\n'


def write_image(path: Path, seed: int, size: tuple[int, int] = (16, 16), gray: bool = False) -> None:
    """A smooth image, so that JPEG keeps it nearly as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(256, size=(4, 4) if gray else (4, 4, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path)


@pytest.fixture(scope='module')
def master(tmp_path_factory):
    folder = tmp_path_factory.mktemp('master') / 'faces'
    for i, (name, number) in enumerate(PEOPLE.items()):
        for j in range(1, number + 1):
            write_image(folder / name / f'{name}_{j:04d}.jpg', seed=10 * i + j, gray=(name, j) == ('Cas', 2))
    (folder / 'Nobody').mkdir()
    (folder / 'Ann' / 'Thumbs.db').write_bytes(b'no image')
    (folder / 'Ann' / '._Ann_0001.jpg').write_bytes(b'what macOS leaves')
    (folder / 'README.txt').write_text('no person')
    (folder.parent / 'pairs.txt').write_text(PAIRS)
    return folder


@pytest.fixture
def folder(master, tmp_path):
    shutil.copy(master.parent / 'pairs.txt', tmp_path)
    return Path(shutil.copytree(master, tmp_path / 'faces'))


def caches(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.startswith('mmcrrcd'))


def names(dataset: FaceFolder) -> tuple[str, ...]:
    return tuple(dataset.people)


def plain(folder: Path, people: tuple[str, ...], side: int) -> np.ndarray:
    files = [folder / name / f'{name}_{j:04d}.jpg' for name in people for j in range(1, PEOPLE[name] + 1)]
    return np.stack([np.asarray(Image.open(file).convert('RGB').resize((side, side), Image.Resampling.BILINEAR))
                     for file in files])


@pytest.mark.parametrize('side', (16, 8, 24))
def test_images_people_and_batches(folder, side):
    dataset = FaceFolder(folder, image_size=side)
    assert names(dataset) == ('Ann', 'Bob', 'Cas', 'Dora') and dataset.labels.tolist() == [0, 0, 0, 1, 2, 2, 3, 3, 3, 3]
    assert np.array_equal(dataset.images.numpy(), plain(folder, names(dataset), side))
    assert np.ptp(dataset.images[5].numpy(), axis=2).max() == 0         # the gray one
    batch, = DataLoader(dataset, batch_size=10, collate_fn=whole_batch)
    assert batch['inputs'].shape == (10, 3, side, side) and batch['inputs'].dtype == torch.uint8
    assert batch['labels'].tolist() == dataset.labels.tolist() and batch['index'].tolist() == list(range(10))


def test_a_reduction_is_antialiased(folder):
    write_image(folder / 'Bob' / 'Bob_0001.jpg', 1)
    stripes = np.zeros((16, 16), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(folder / 'Bob' / 'Bob_0001.png')
    (folder / 'Bob' / 'Bob_0001.jpg').unlink()
    image = FaceFolder(folder, image_size=4).images[3].float()
    assert image.min() > 100 and image.max() < 155       # two of each stripe's pixels would be 0 or 255


def test_an_image_that_is_not_square_is_squeezed(folder):
    wide = np.zeros((16, 32, 3), np.uint8)
    wide[:, 16:] = 200
    Image.fromarray(wide).save(folder / 'Bob' / 'Bob_0001.png')
    (folder / 'Bob' / 'Bob_0001.jpg').unlink()
    image = FaceFolder(folder, image_size=16).images[3].numpy()
    assert (image[:, :7] == 0).all() and (image[:, 9:] == 200).all()


@pytest.mark.parametrize('settings, expected', [
    (dict(min_images=2), 'Ann Cas Dora'), (dict(min_images=4), 'Dora'),
    (dict(exclude='pairs.txt', exclude_folds=[0]), 'Cas Dora'), (dict(exclude='pairs.txt', exclude_folds=[1]), 'Ann Bob'),
    (dict(exclude='pairs.txt', exclude_folds=[1], min_images=2), 'Ann'),
    (dict(exclude='names.txt'), 'Ann Cas'), (dict(identities='names.txt'), 'Bob Dora'),
    (dict(identities='names.txt', exclude='pairs.txt', exclude_folds=(0,)), 'Dora'),
])
def test_who_is_in(folder, monkeypatch, settings, expected):
    monkeypatch.chdir(folder.parent)
    Path('names.txt').write_text('Dora\n\nBob \n')
    dataset = FaceFolder('faces', image_size=16, **settings)
    assert names(dataset) == tuple(expected.split())
    assert dataset.labels.tolist() == [i for i, name in enumerate(names(dataset)) for _ in range(PEOPLE[name])]
    assert np.array_equal(dataset.images.numpy(), plain(folder, names(dataset), 16))


def test_each_choice_has_a_file_of_its_own(folder):
    everybody, some = FaceFolder(folder, 16), FaceFolder(folder, 16, min_images=2)
    FaceFolder(folder, 8)
    assert len(caches(folder)) == 3
    before = {path: path.stat().st_mtime_ns for path in caches(folder)}
    assert np.array_equal(FaceFolder(folder, 16).images, everybody.images)
    assert np.array_equal(FaceFolder(folder, 16, min_images=2).images, some.images)
    assert {path: path.stat().st_mtime_ns for path in caches(folder)} == before


def test_the_second_time_the_file_is_mapped(folder, monkeypatch):
    first = FaceFolder(folder, 16).images.numpy().copy()
    monkeypatch.delattr(decoded, 'read_image')           # nothing is decoded from here on
    file, = caches(folder)
    again = FaceFolder(folder, 16)
    assert np.array_equal(again.images.numpy(), first)
    before = file.read_bytes()
    again.images[:] = 7                                  # private to this process
    assert file.read_bytes() == before


def test_a_folder_for_the_decoded_files(folder, tmp_path):
    other = Path(shutil.copytree(folder, tmp_path / 'other' / 'faces'))
    write_image(other / 'Bob' / 'Bob_0001.jpg', 99)
    cache = tmp_path / 'cache' / 'of' / 'mine'
    sets = [FaceFolder(root, 16, cache_dir=cache).images.numpy().copy() for root in (folder, other)]
    assert len(list(cache.iterdir())) == 2 and caches(folder) == caches(other) == []
    assert [i for i in range(10) if not np.array_equal(sets[0][i], sets[1][i])] == [3]


@pytest.mark.parametrize('change', ['size', 'name', 'more', 'fewer'])
def test_what_changes_is_decoded_anew(folder, change):
    FaceFolder(folder, 16)
    old, = caches(folder)
    path = folder / 'Cas' / 'Cas_0001.jpg'
    if change == 'size':
        write_image(path, seed=99, size=(24, 24))
    elif change == 'name':
        path.rename(path.with_name('Cas_0009.jpg'))
    elif change == 'more':
        write_image(path.with_name('Cas_0003.jpg'), seed=99)
    else:
        path.unlink()
    dataset = FaceFolder(folder, 16)
    new, = caches(folder)
    assert new != old and len(dataset) == {'more': 11, 'fewer': 9}.get(change, 10)
    files = sorted(folder.glob('*/[A-Z]*.jpg'))
    assert np.array_equal(dataset.images.numpy(), decoded.decode_files(files, 16))


@pytest.mark.parametrize('damage', ['cut', 'header', 'other', 'empty'])
def test_a_damaged_file_is_made_anew(folder, monkeypatch, damage):
    found = []
    monkeypatch.setattr(decoded, 'print_log', lambda text, logger, level: found.append((level, text)))
    first = FaceFolder(folder, 16).images.numpy().copy()
    file, = caches(folder)
    whole = file.read_bytes()
    if damage == 'other':
        np.save(file, np.zeros((10, 8, 8, 3), np.uint8))
    else:
        file.write_bytes({'cut': whole[:-1], 'header': whole[:40], 'empty': b''}[damage])
    assert np.array_equal(FaceFolder(folder, 16).images.numpy(), first) and file.read_bytes() == whole
    (level, text), = found
    assert level == logging.WARNING and text.startswith(f'{file} is damaged (') and '\n' not in text


def test_several_processes_decode_the_same(folder, monkeypatch):
    one = FaceFolder(folder, 16).images.numpy().copy()
    caches(folder)[0].unlink()
    monkeypatch.setattr(decoded, 'WORTH_PROCESSES', 1)
    monkeypatch.setattr(decoded, 'BLOCK', 1)             # ten blocks, of which at most four are under way
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {0, 1})
    assert np.array_equal(FaceFolder(folder, 16).images.numpy(), one)


def test_blocks_are_asked_for_as_they_are_read():
    class Pool:
        def apply_async(self, function, args):
            asked.append(args[0])
            return type('Result', (), dict(get=lambda _: function(*args)))()

    asked, read = [], []
    for value in decoded.in_order(Pool(), lambda block: -block, range(7), 3):
        read.append(value)
        assert len(asked) <= len(read) + 2
    assert read == [-i for i in range(7)] and asked == list(range(7))


@pytest.mark.parametrize('several', (False, True))
def test_an_image_that_cannot_be_read(folder, monkeypatch, several):
    if several:
        monkeypatch.setattr(decoded, 'WORTH_PROCESSES', 1)
        monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {0, 1})
    path = folder / 'Dora' / 'Dora_0002.jpg'
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError) as error:
        FaceFolder(folder, 16)
    assert str(error.value).startswith(f'{path} cannot be read as an image (') and '\n' not in str(error.value)
    assert caches(folder) == []                          # no half of a file either


def test_a_folder_that_cannot_be_written_to(folder, monkeypatch):
    def full(file):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(InputError) as error:
        FaceFolder(folder, 16)
    assert str(error.value).endswith('cannot be written (No space left on device); set cache_dir to a folder with room for '
                                     '0.0 GB')
    assert caches(folder) == []


def test_another_process_without_the_file(folder, monkeypatch):
    monkeypatch.setattr(decoded, 'is_main_process', lambda: False)
    with pytest.raises(InputError, match='is not on this machine; set cache_dir to a shared folder$'):
        FaceFolder(folder, 16)
    assert caches(folder) == []


@pytest.mark.parametrize('settings, error, message', [
    (dict(data_root='nowhere'), FileNotFoundError, 'there is no folder nowhere'),
    (dict(data_root='faces/Ann'), InputError, 'faces/Ann: the split is empty'),
    (dict(min_images=9), InputError, 'faces: the split is empty (nobody with a folder of 9 images is left)'),
    (dict(min_images=0), InputError, 'image_size and min_images are at least 1, got 112 and 0'),
    (dict(image_size=0), InputError, 'image_size and min_images are at least 1, got 0 and 1'),
    (dict(exclude='pairs.txt'), InputError, 'faces: the split is empty'),
    (dict(exclude_folds=[1]), InputError, 'exclude_folds are those of a pairs.txt: set exclude to its path'),
    (dict(exclude='pairs.txt', exclude_folds=[2]), InputError, 'pairs.txt has the folds 0 to 1, got [2]'),
    (dict(exclude='names.txt', exclude_folds=[1]), InputError, 'names.txt is a list of names without folds, got [1]'),
    (dict(exclude='names.txt'), InputError, 'names.txt names nobody of faces'),
    (dict(identities='names.txt'), InputError, "names.txt names 'Zoe', of whom there is no folder in faces"),
    (dict(identities='nowhere.txt'), FileNotFoundError, 'there is no file nowhere.txt'),
    (dict(identities='faces/Ann/Ann_0001.jpg'), InputError, 'faces/Ann/Ann_0001.jpg is not a text file'),
])
def test_settings_that_cannot_work(folder, monkeypatch, settings, error, message):
    monkeypatch.chdir(folder.parent)
    Path('names.txt').write_text('Zoe\n')
    with pytest.raises(error) as raised:
        FaceFolder(**dict(data_root='faces') | settings)
    assert str(raised.value).startswith(message) and '\n' not in str(raised.value)


def test_from_a_config_and_on_the_mmpretrain_pipeline(folder):
    dataset = DATASETS.build(dict(type='mmcrrcd.FaceFolder', data_root=str(folder), image_size=16))
    sample = PipelineArrays(dataset).get_data_info(4)
    assert sample['gt_label'] == 2 and np.array_equal(sample['img'], dataset.images[4].numpy())


@pytest.mark.slow
def test_the_real_lfw(lfw, lfw_pairs_file, tmp_path):
    dataset = FaceFolder(lfw, 32, exclude=lfw_pairs_file, exclude_folds=[8, 9], min_images=2, cache_dir=tmp_path)
    assert len(names(dataset)) == 1334 and dataset.images.shape[1:] == (32, 32, 3)
    assert dataset.labels.bincount().min() == 2 and dataset.labels.bincount().max() == 236
    assert names(dataset)[dataset.labels.bincount().argmax()] == 'Colin_Powell'
