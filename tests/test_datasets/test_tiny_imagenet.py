"""Tiny ImageNet from folders in the official form: decoding, the cache beside them, and what is wrong with them."""
import logging
import os
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmcrrcd.datasets import TinyImageNetArrays, decoded, tiny_imagenet
from mmcrrcd.errors import InputError
from PIL import Image
from utils import shared_file

NUMBERS = [f'n{1000 + 7 * i:08}' for i in range(200)]
PER_CLASS = 2


def write_image(path: Path, seed: int, gray: bool = False, side: int = 64) -> None:
    """A smooth image, so that JPEG keeps it nearly as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(256, size=(4, 4) if gray else (4, 4, 3), dtype=np.uint8)
    Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(path, 'JPEG', quality=95)


@pytest.fixture(scope='module')
def master(tmp_path_factory):
    folder = tmp_path_factory.mktemp('master') / 'tiny-imagenet-200'
    for i, number in enumerate(NUMBERS):
        for j in range(PER_CLASS):
            write_image(folder / 'train' / number / 'images' / f'{number}_{j}.JPEG', seed=10 * i + j, gray=i == 5)
        (folder / 'train' / number / f'{number}_boxes.txt').write_text(f'{number}_0.JPEG\t0\t0\t63\t63\n')
    lines = []
    for i in range(30):
        write_image(folder / 'val' / 'images' / f'val_{i}.JPEG', seed=5000 + i, gray=i == 3)
        lines.append(f'val_{i}.JPEG\t{NUMBERS[i * 37 % 200]}\t0\t32\t44\t62\n')
    (folder / 'val' / 'val_annotations.txt').write_text(''.join(lines))
    (folder / 'wnids.txt').write_text('\n'.join(reversed(NUMBERS)) + '\n')                    # in an order of its own
    (folder / 'words.txt').write_text(''.join(f'{number}\tname {i}, another name\n' for i, number in enumerate(NUMBERS)))
    return folder


@pytest.fixture
def folder(master, tmp_path):
    return Path(shutil.copytree(master, tmp_path / 'tiny-imagenet-200'))


@pytest.fixture
def warnings(monkeypatch):
    found = []
    for module in (decoded, tiny_imagenet):
        monkeypatch.setattr(module, 'print_log', lambda text, logger, level: found.append((level, text)))
    return found


def load(folder: Path, split: str = 'val') -> TinyImageNetArrays:
    return TinyImageNetArrays(folder.parent, split, download=False)


def caches(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name.startswith('mmcrrcd'))


def test_images_labels_and_classes(folder, warnings):
    train, val = load(folder, 'train'), load(folder)
    assert len(train) == 400 and train.images.shape == (400, 64, 64, 3)
    assert train.metainfo['classes'] == val.metainfo['classes'] == tuple(f'name {i}' for i in range(200))
    assert train.labels.tolist() == [i for i in range(200) for _ in range(PER_CLASS)]
    assert val.labels.tolist() == [i * 37 % 200 for i in range(30)]
    for row, path in ((0, f'train/{NUMBERS[0]}/images/{NUMBERS[0]}_0.JPEG'),
                      (399, f'train/{NUMBERS[199]}/images/{NUMBERS[199]}_1.JPEG')):
        assert np.array_equal(train.images[row].numpy(), np.asarray(Image.open(folder / path)))
    assert np.array_equal(val.images[29].numpy(), np.asarray(Image.open(folder / 'val/images/val_29.JPEG')))
    assert warnings == [(logging.WARNING, f'{folder} (train) holds 400 of the official 100,000 images'),
                        (logging.WARNING, f'{folder} (val) holds 30 of the official 10,000 images')]


def test_gray_images_get_three_equal_channels(folder):
    gray = load(folder).images[3].numpy()
    expected = np.asarray(Image.open(folder / 'val/images/val_3.JPEG'))
    assert expected.ndim == 2 and np.array_equal(gray, np.repeat(expected[..., None], 3, axis=2))


def test_the_test_split_is_the_validation_split(folder):
    assert np.array_equal(load(folder, 'test').images.numpy(), load(folder, 'val').images.numpy())


def test_the_second_time_the_file_is_mapped(folder, monkeypatch):
    first = load(folder).images.numpy().copy()
    monkeypatch.setattr(tiny_imagenet, 'decode', None)         # nothing is decoded from here on
    file, = caches(folder)
    again = load(folder)
    assert np.array_equal(again.images.numpy(), first)
    before = file.read_bytes()
    again.images[:] = 7                                  # private to this process
    assert file.read_bytes() == before
    assert np.array_equal(load(folder).images.numpy(), first)


def test_several_processes_decode_the_same(folder, monkeypatch):
    one = load(folder, 'train').images.numpy().copy()
    caches(folder)[0].unlink()
    monkeypatch.setattr(decoded, 'WORTH_PROCESSES', 1)
    monkeypatch.setattr(decoded, 'BLOCK', 33)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {0, 1})
    seen = []
    pool = type(decoded.get_context('fork').Pool(1))
    apply = pool.apply_async
    monkeypatch.setattr(pool, 'apply_async', lambda self, *args: seen.append(self._processes) or apply(self, *args))
    assert np.array_equal(load(folder, 'train').images.numpy(), one)
    assert seen == [2] * 13                              # blocks of 33


def test_images_that_change_are_decoded_anew(folder):
    first = load(folder).images.numpy().copy()
    own = folder / 'val-features.npy'
    own.write_bytes(b'of the user')
    train = load(folder, 'train')
    old, = set(caches(folder)) - {next(path for path in caches(folder) if 'train' in path.name)}
    write_image(folder / 'val' / 'images' / 'val_8.JPEG', seed=1)
    changed = load(folder).images.numpy()
    assert [i for i in range(30) if not np.array_equal(changed[i], first[i])] == [8]
    assert not old.exists() and own.exists() and len(caches(folder)) == 2
    assert len(train) == 400


@pytest.mark.parametrize('damage', ['cut', 'header', 'other', 'empty', 'text'])
def test_a_damaged_cache_is_made_anew(folder, warnings, damage):
    first = load(folder).images.numpy().copy()
    file, = caches(folder)
    whole = file.read_bytes()
    content = {'cut': whole[:-1], 'header': whole[:40], 'empty': b'', 'text': b'text' * 100}.get(damage)
    if damage == 'other':
        np.save(file, np.zeros((30, 32, 32, 3), np.uint8))
    else:
        file.write_bytes(content)
    del warnings[:]
    assert np.array_equal(load(folder).images.numpy(), first)
    assert file.read_bytes() == whole
    assert warnings[0][1].startswith(f'{file} is damaged (') and '\n' not in warnings[0][1]


def test_a_death_while_decoding_leaves_no_cache(folder, monkeypatch):
    decode, calls = tiny_imagenet.decode, []

    def killed(files):
        calls.append(len(files))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return decode(files)

    with monkeypatch.context() as patch:
        patch.setattr(decoded, 'BLOCK', 10)
        patch.setattr(tiny_imagenet, 'decode', killed)
        with pytest.raises(KeyboardInterrupt):
            load(folder)
    assert calls == [10, 10, 10] and caches(folder) == []
    assert len(load(folder)) == 30


def test_a_folder_that_cannot_be_written_to(folder, monkeypatch, warnings):
    expected = load(folder).images.numpy().copy()
    caches(folder)[0].unlink()

    def full(file):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    del warnings[:]
    assert np.array_equal(load(folder).images.numpy(), expected)
    assert caches(folder) == []
    assert warnings[0][1].endswith('cannot be written (No space left on device); the images are decoded in each run')


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize('split, path', [
    ('val', 'wnids.txt'), ('val', 'words.txt'), ('val', 'val/val_annotations.txt'), ('val', 'val/images/val_4.JPEG'),
    ('val', 'val/images'), ('train', f'train/{NUMBERS[7]}/images'), ('train', f'train/{NUMBERS[7]}'), ('train', 'train'),
])
def test_missing_files_are_named(folder, split, path):
    remove(folder / path)
    with pytest.raises(FileNotFoundError) as error:
        load(folder, split)
    named = folder / path
    if path == 'val/images':
        named = named / 'val_0.JPEG'
    if split == 'train':
        named = folder / 'train' / NUMBERS[0 if path == 'train' else 7] / 'images'
    assert str(named) in str(error.value) and '\n' not in str(error.value)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize('split, path, damage, message', [
    ('val', 'val/images/val_4.JPEG', cut, 'cannot be read as an image ('),
    ('train', f'train/{NUMBERS[9]}/images/{NUMBERS[9]}_1.JPEG', lambda path: path.write_text('no image'),
     'cannot be read as an image (it is none of'),
    ('val', 'val/images/val_4.JPEG', lambda path: path.write_bytes(b''), 'cannot be read as an image ('),
    ('val', 'val/images/val_4.JPEG', lambda path: write_image(path, 0, side=32), 'expected 64 x 64 pixels, got 32 x 32'),
    ('val', 'wnids.txt', lambda path: path.write_text('n1\nn2\n'), 'expected 200 classes, got 2'),
    ('val', 'words.txt', lambda path: path.write_bytes(b'\xff\xfe'), 'is not a text file'),
    ('val', 'val/val_annotations.txt', lambda path: path.write_text('val_0.JPEG\n'),
     "line 1: expected a file, a class of wnids.txt and a box, got 'val_0.JPEG'"),
    ('val', 'val/val_annotations.txt', lambda path: path.write_text(f'val_0.JPEG\t{NUMBERS[0]}\nval_1.JPEG\tn5\n'),
     "line 2: expected a file, a class of wnids.txt and a box, got 'val_1.JPEG\\tn5'"),
    ('val', 'val/val_annotations.txt', lambda path: path.write_text(''), 'the split is empty'),
])
@pytest.mark.parametrize('several', (False, True))
def test_damaged_files_end_in_one_line(folder, monkeypatch, split, path, damage, message, several):
    if several:
        monkeypatch.setattr(decoded, 'WORTH_PROCESSES', 1)
        monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {0, 1})
    damage(folder / path)
    with pytest.raises(InputError) as error:
        load(folder, split)
    named = folder if 'empty' in message else folder / path
    assert str(error.value).startswith(str(named)) and message in str(error.value) and '\n' not in str(error.value)
    assert caches(folder) == []


def test_settings_that_cannot_work(tmp_path):
    with pytest.raises(InputError, match="split is 'train', 'val' or 'test', got 'valid'"):
        TinyImageNetArrays(tmp_path, 'valid')
    with pytest.raises(FileNotFoundError, match='tiny-imagenet-200 is missing; set download=True, or unpack http.*zip into'):
        TinyImageNetArrays(tmp_path, download=False)


@pytest.mark.parametrize('place, remedy', [
    ('tiny_imagenet/tiny-imagenet-200', "set data_root='data/tiny_imagenet'"),
    ('tiny-imagenet-200', "set data_root='data'"),
    ('tiny_imagenet', 'move what it holds into data/tinyimagenet/tiny-imagenet-200'),
    ('tinyimagenet', 'move what it holds into data/tinyimagenet/tiny-imagenet-200'),
])
@pytest.mark.parametrize('download', (True, False))
def test_images_under_another_name_are_found_but_not_taken(tmp_path, monkeypatch, place, remedy, download):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tiny_imagenet, 'fetch', None)    # nothing is downloaded
    (Path('data') / place).mkdir(parents=True)
    (Path('data') / place / 'wnids.txt').write_text('n1\n')
    with pytest.raises(FileNotFoundError) as error:
        TinyImageNetArrays('data/tinyimagenet', download=download)
    assert str(error.value) == f'data/tinyimagenet/tiny-imagenet-200 is missing, but the images are in data/{place}: {remedy}'


def test_a_data_root_that_is_the_folder_itself(folder):
    with pytest.raises(FileNotFoundError) as error:
        TinyImageNetArrays(folder, download=False)
    assert str(error.value).endswith(f"but the images are in {folder}: set data_root='{folder.parent}'")


def test_where_all_is_right_another_copy_does_not_matter(folder, tmp_path):
    right = Path(shutil.copytree(folder, tmp_path / 'tinyimagenet' / 'tiny-imagenet-200'))     # beside it is the other
    assert len(load(right)) == 30


@pytest.mark.slow
def test_the_real_images(tmp_path):
    shared_file('data', 'tiny_imagenet', 'tiny-imagenet-200-50.tar')
    unpack = runpy.run_path(str(shared_file('data', 'unpack.py')))
    unpack['SETS']['tiny_imagenet'](tmp_path)
    folder = tmp_path / 'tiny-imagenet-200'
    for split in ('train', 'val'):
        dataset = TinyImageNetArrays(tmp_path, split, download=False)
        assert dataset.images.shape == (10_000, 64, 64, 3)
        assert dataset.labels.bincount().tolist() == [50] * 200
        # the published mean is .4802, .4481, .3975, the standard deviation .2770, .2691, .2821 (of all 100,000)
        pixels = dataset.images.numpy()
        assert pixels.mean((0, 1, 2)) / 255 == pytest.approx([.4802, .4481, .3975], abs=4e-3)
        assert pixels.std((0, 1, 2)) / 255 == pytest.approx([.2770, .2691, .2821], abs=2e-3)
        assert dataset.metainfo['classes'][0] == 'goldfish'
    line = (folder / 'val' / 'val_annotations.txt').read_text().splitlines()[123].split('\t')
    assert np.array_equal(dataset.images[123].numpy(), np.asarray(Image.open(folder / 'val/images' / line[0]).convert('RGB')))
    assert sorted((folder / 'wnids.txt').read_text().split())[dataset.labels[123]] == line[1]


@pytest.mark.parametrize('below', ['', 'images'])
def test_a_validation_that_others_have_sorted_into_folders_is_read(folder, below):
    """The same images with the same labels, in the order of the classes."""
    before = load(folder)
    for line in (folder / 'val' / 'val_annotations.txt').read_text().splitlines():
        name, number, *_ = line.split('\t')
        place = folder / 'val' / number / below
        place.mkdir(parents=True, exist_ok=True)
        (folder / 'val' / 'images' / name).rename(place / name)
    (folder / 'val' / 'images').rmdir()
    (folder / 'val' / 'val_annotations.txt').unlink()
    after = load(folder)

    def pairs(data):
        return sorted((int(label), image.tobytes()) for image, label in zip(data.images.numpy(), data.labels))

    assert pairs(after) == pairs(before) and (after.labels.diff() >= 0).all()


def test_an_annotation_cannot_name_a_file_elsewhere(folder):
    file = folder / 'val' / 'val_annotations.txt'
    file.write_text(file.read_text().replace('val_3.JPEG', '/etc/passwd', 1))
    with pytest.raises(InputError, match="line 4 names '/etc/passwd', which is not in"):
        load(folder)
