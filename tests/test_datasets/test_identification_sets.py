"""TinyFace, UCCS and ORL in their folders' form."""
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmcrrcd.datasets import FaceFolder, UCCSFaces, decoded, identification_sets, read_orl, read_tinyface
from mmcrrcd.errors import InputError
from PIL import Image
from scipy.io import savemat

GALLERY = ['12_3.jpg', '7_1.jpg', '12_1.jpg']
PROBE = ['7_4.jpg', '12_2.jpg']
DISTRACTORS = ['10.jpg', '2.jpg', '1.jpg', '33.png', '4.jpg']


def write_image(path: Path, seed: int, size: tuple[int, int] = (16, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(256, size=(4, 4, 3), dtype=np.uint8)
    Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).save(path)


def pixels(path: Path, side: int) -> np.ndarray:
    return np.asarray(Image.open(path).convert('RGB').resize((side, side), Image.Resampling.BILINEAR))


def cells(names: list[str]) -> np.ndarray:
    """A column of MATLAB's cells."""
    return np.array(names, object)[:, None]


@pytest.fixture
def tinyface(tmp_path):
    root = tmp_path / 'tinyface'
    folder = root / 'Testing_Set'
    for i, (part, names) in enumerate((('Gallery_Match', GALLERY), ('Probe', PROBE), ('Gallery_Distractor', DISTRACTORS))):
        for j, name in enumerate(names):
            write_image(folder / part / name, 10 * i + j, (9 + j, 12))
    savemat(folder / 'gallery_match_img_ID_pairs.mat', dict(
        gallery_set=cells(GALLERY), gallery_ids=np.array([[12], [7], [12]], np.uint16)))
    savemat(folder / 'probe_img_ID_pairs.mat', dict(probe_set=cells(PROBE), probe_ids=np.array([[7.], [12.]])))
    for person, number in ((1, 2), (5, 3)):
        for image in range(1, number + 1):
            write_image(root / 'Training_Set' / str(person) / f'{person}_{image}.jpg', image)
    return root


def test_tinyface(tinyface):
    found, folder = read_tinyface(tinyface), tinyface / 'Testing_Set'
    assert found.gallery.files == [folder / 'Gallery_Match' / name for name in GALLERY]         # in the order of the list
    assert found.probe.files == [folder / 'Probe' / name for name in PROBE]
    assert found.distractors.files == [folder / 'Gallery_Distractor' / name for name in sorted(DISTRACTORS)]
    assert found.gallery.ids.tolist() == [12, 7, 12] and found.probe.ids.tolist() == [7, 12]
    assert found.distractors.ids.tolist() == [-100] * 5
    assert all(part.ids.dtype == np.int64 for part in found)
    assert np.array_equal(found.probe.images(16), [pixels(folder / 'Probe' / name, 16) for name in PROBE])
    train = FaceFolder(tinyface / 'Training_Set', 16)
    assert train.people == ['1', '5'] and train.metainfo['classes'] == ('0', '1') and train.labels.tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize('several', (False, True))
def test_distractors_come_in_blocks(tinyface, monkeypatch, several):
    monkeypatch.setattr(decoded, 'BLOCK', 2)
    if several:
        monkeypatch.setattr(decoded, 'WORTH_PROCESSES', 1)
        monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {0, 1})
    distractors = read_tinyface(tinyface).distractors
    blocks = list(distractors.blocks(16))
    assert [len(block) for block in blocks] == [2, 2, 1]
    assert np.array_equal(np.concatenate(blocks), [pixels(file, 16) for file in distractors.files])


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize('path, message', [
    ('probe_img_ID_pairs.mat', 'there is no file {path}'), ('gallery_match_img_ID_pairs.mat', 'there is no file {path}'),
    ('Probe/12_2.jpg', '{path} of {folder}/probe_img_ID_pairs.mat is missing (1 of 2 images are)'),
    ('Gallery_Match', '{path}/12_3.jpg of {folder}/gallery_match_img_ID_pairs.mat is missing (3 of 3 images are)'),
    ('Gallery_Distractor', 'there is no folder {path}'),
])
def test_what_is_missing_from_tinyface(tinyface, path, message):
    folder = tinyface / 'Testing_Set'
    remove(folder / path)
    with pytest.raises(FileNotFoundError) as error:
        read_tinyface(tinyface)
    assert str(error.value) == message.format(path=folder / path, folder=folder)


@pytest.mark.parametrize('content, message', [
    (b'no list', ' is not a readable list of probe_set and probe_ids ('),
    (dict(probe_set=cells(PROBE)), ' is not a readable list of probe_set and probe_ids ('),
    (dict(probe_set=cells(PROBE), probe_ids=np.array([[7]])), ': expected an id for each image, got 2 images and 1 ids'),
    (dict(probe_set=cells([]), probe_ids=np.array([])), ': expected an id for each image, got 0 images and 0 ids'),
])
def test_lists_of_tinyface_that_are_damaged(tinyface, content, message):
    path = tinyface / 'Testing_Set' / 'probe_img_ID_pairs.mat'
    path.write_bytes(content) if isinstance(content, bytes) else savemat(path, content)
    with pytest.raises(InputError) as error:
        read_tinyface(tinyface)
    assert str(error.value).startswith(f'{path}{message}') and '\n' not in str(error.value)


def test_images_of_tinyface_that_are_damaged(tinyface):
    path = tinyface / 'Testing_Set' / 'Gallery_Distractor' / '2.jpg'
    path.write_bytes(b'no image')
    with pytest.raises(InputError, match=f'^{path} cannot be read as an image \\(it is none of'):
        list(read_tinyface(tinyface).distractors.blocks(16))
    for name in DISTRACTORS:
        (path.parent / name).unlink()
    with pytest.raises(InputError, match='Gallery_Distractor: no image$'):
        read_tinyface(tinyface)


@pytest.fixture
def uccs(tmp_path):
    root = tmp_path / 'uccs'
    for person in range(3):
        for image in range(4):
            write_image(root / f'p{person}' / f'{image}.png', 10 * person + image)
    (root / 'train.txt').write_text('p1/3.png\np0/0.png\np1/0.png\np2/2.png\np0/1.png\n')
    (root / 'test.txt').write_text('p2/0.png\r\np0/3.png\r\n')
    return root


@pytest.fixture
def warnings(monkeypatch):
    found = []
    monkeypatch.setattr(identification_sets, 'print_log', lambda text, logger, level: found.append((level, text)))
    return found


def test_uccs(uccs, warnings, tmp_path):
    train, test = UCCSFaces(uccs, 'train', 16), UCCSFaces(uccs, 'test', 16, cache_dir=tmp_path / 'cache')
    assert train.metainfo['classes'] == test.metainfo['classes'] == ('p0', 'p1', 'p2')
    assert train.labels.tolist() == [1, 0, 1, 2, 0] and test.labels.tolist() == [2, 0]
    assert np.array_equal(train.images, [pixels(uccs / line, 16) for line in (uccs / 'train.txt').read_text().split()])
    assert np.array_equal(test.images, [pixels(uccs / line, 16) for line in ('p2/0.png', 'p0/3.png')])
    assert len(list(uccs.glob('mmcrrcd-uccs-train-16px-*.npy'))) == len(list((tmp_path / 'cache').iterdir())) == 1
    assert warnings == [(logging.WARNING, f"{uccs} (train) holds 5 images of 3 people, the paper's are 3,918 of 180"),
                        (logging.WARNING, f"{uccs} (test) holds 2 images of 3 people, the paper's are 907 of 180")]


def test_the_counts_of_the_paper_need_no_warning(uccs, warnings, monkeypatch):
    monkeypatch.setattr(identification_sets, 'UCCS_PEOPLE', 3)
    monkeypatch.setitem(identification_sets.UCCS_COUNTS, 'train', 5)
    UCCSFaces(uccs, 'train', 16)
    assert warnings == []


def test_a_list_of_uccs_that_changes_is_decoded_anew(uccs, warnings):
    UCCSFaces(uccs, 'train', 16)
    (uccs / 'train.txt').write_text('p1/3.png\np0/2.png\n')
    assert np.array_equal(UCCSFaces(uccs, 'train', 16).images[1], pixels(uccs / 'p0/2.png', 16))
    assert len(list(uccs.glob('*.npy'))) == 1


@pytest.mark.parametrize('name, content, error, message', [
    ('train.txt', None, FileNotFoundError, 'there is no file {root}/train.txt'),
    ('test.txt', None, FileNotFoundError, 'there is no file {root}/test.txt'),
    ('train.txt', '\n', InputError, '{root}/train.txt: the split is empty'),
    ('train.txt', 'p0/0.png\np9/0.png\n', InputError, '{root}/train.txt, line 2: expected <identity>/<image>, a folder beside '
                                                      "the list and an image in it, got 'p9/0.png'"),
    ('train.txt', 'p0\n', InputError, "{root}/train.txt, line 1: expected <identity>/<image>, a folder beside the list and an "
                                      "image in it, got 'p0'"),
    ('train.txt', 'p0/../../a.png\n', InputError, '{root}/train.txt, line 1: expected <identity>/<image>, a folder beside the '
                                                  "list and an image in it, got 'p0/../../a.png'"),
    ('train.txt', 'p0/9.png\n', FileNotFoundError, '{root}/p0/9.png of train.txt is missing (1 of 1 images are)'),
    ('train.txt', 'p0/0.png\np0/3.png\n', InputError, '{root}: p0/3.png is in train.txt and in test.txt'),
])
def test_what_is_wrong_with_uccs(uccs, name, content, error, message):
    (uccs / name).unlink() if content is None else (uccs / name).write_text(content)
    with pytest.raises(error) as raised:
        UCCSFaces(uccs, 'train', 16)
    assert str(raised.value) == message.format(root=uccs)


def test_a_split_that_uccs_has_not(uccs):
    with pytest.raises(InputError, match="^split is 'train' or 'test', got 'val'$"):
        UCCSFaces(uccs, 'val')


def test_orl(tmp_path):
    for person in range(1, 41):
        for image in range(1, 11):
            path = tmp_path / f's{person}' / f'{image}.pgm'
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.full((112, 92), person + image, np.uint8)).save(path)
    orl = read_orl(tmp_path)
    assert orl.ids.tolist() == [person for person in range(1, 41) for _ in range(10)]
    images = orl.images(8)
    assert images.shape == (400, 8, 8, 3)
    assert (images == orl.ids[:, None, None, None] + np.tile(range(1, 11), 40)[:, None, None, None]).all()
    (tmp_path / 's3' / '10.pgm').unlink()
    with pytest.raises(FileNotFoundError, match=rf'^{tmp_path}/s3/10.pgm of ORL is missing \(1 of 400 images are\)$'):
        read_orl(tmp_path)


def test_the_real_orl(orl):
    images = read_orl(orl).images(16).reshape(40, 10, -1).astype(float)
    within = np.abs(images[:, :1] - images[:, 1:]).mean()
    between = np.abs(images[:1] - images[1:]).mean()
    assert within < 0.7 * between                        # images of one person are nearer
