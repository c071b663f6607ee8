"""Pairs in the form of LFW's pairs.txt and of InsightFace's ``.bin``, written here as their authors do."""
import io
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmcrrcd.datasets import VerificationPairs, bin_pairs, decoded, lfw_pairs
from mmcrrcd.datasets.verification_sets import read_pairs
from mmcrrcd.errors import InputError
from PIL import Image

PAIRS = """2\t2
Ann\t1\t3
Ann\t2\t1
Ann\t1\tBob\t2
Bob\t1\tAnn\t3
Cas\t1\t2
Dora_van_Es\t2\t1
Cas\t2\tDora_van_Es\t1
Dora_van_Es\t2\tCas\t1
"""
# as they first occur
NAMES = ['Ann 1', 'Ann 3', 'Ann 2', 'Bob 2', 'Bob 1', 'Cas 1', 'Cas 2', 'Dora_van_Es 2', 'Dora_van_Es 1']


def image_of(seed: int, side: int = 16) -> Image.Image:
    """A smooth image, so that JPEG keeps it nearly as it is."""
    small = np.random.default_rng(seed).integers(256, size=(4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def encoded(seed: int, kind: str = 'JPEG') -> bytes:
    file = io.BytesIO()
    image_of(seed).save(file, kind)
    return file.getvalue()


def pixels(content: bytes, side: int = 16) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).resize((side, side), Image.Resampling.BILINEAR))


@pytest.fixture(scope='module')
def master(tmp_path_factory):
    root = tmp_path_factory.mktemp('master')
    for seed, name in enumerate([*NAMES, 'Eve 1']):
        person, number = name.split()
        path = root / 'faces' / person / f'{person}_{int(number):04d}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(seed))
    (root / 'pairs.txt').write_text(PAIRS)
    return root


@pytest.fixture
def root(master, tmp_path):
    return Path(shutil.copytree(master, tmp_path / 'lfw'))


def load(root: Path, **options) -> VerificationPairs:
    return lfw_pairs(root / 'faces', root / 'pairs.txt', **options)


@pytest.mark.parametrize('side', (16, 10))
def test_pairs(root, side):
    pairs = load(root, image_size=side)
    assert len(pairs) == 8 and len(pairs.images) == len(NAMES)          # each once; Eve is in no pair
    assert np.array_equal(pairs.images, [pixels(encoded(seed), side) for seed in range(len(NAMES))])
    named = [[NAMES[left], NAMES[right]] for left, right in zip(pairs.left, pairs.right)]
    assert named == [['Ann 1', 'Ann 3'], ['Ann 2', 'Ann 1'], ['Ann 1', 'Bob 2'], ['Bob 1', 'Ann 3'], ['Cas 1', 'Cas 2'],
                     ['Dora_van_Es 2', 'Dora_van_Es 1'], ['Cas 2', 'Dora_van_Es 1'], ['Dora_van_Es 2', 'Cas 1']]
    assert pairs.same.tolist() == [True, True, False, False] * 2 and pairs.fold.tolist() == [0] * 4 + [1] * 4


def test_some_folds(root):
    shutil.rmtree(root / 'faces' / 'Ann')                # their people alone have to be there
    pairs = load(root, image_size=16, folds=[1])
    assert np.array_equal(pairs.images, [pixels(encoded(seed)) for seed in range(5, 9)])
    assert pairs.left.tolist() == [0, 2, 1, 2] and pairs.right.tolist() == [1, 3, 3, 0]
    assert pairs.same.tolist() == [True, True, False, False] and pairs.fold.tolist() == [1] * 4


def test_images_may_be_png(root):
    (root / 'faces/Bob/Bob_0002.jpg').unlink()
    (root / 'faces/Bob/Bob_0002.png').write_bytes(encoded(50, 'PNG'))
    assert np.array_equal(load(root, image_size=16).images[3], image_of(50))


def test_several_processes_decode_the_same(root, monkeypatch):
    one = load(root, image_size=16).images
    monkeypatch.setattr(decoded, 'WORTH_PROCESSES', 1)
    monkeypatch.setattr(decoded, 'BLOCK', 2)
    monkeypatch.setattr(os, 'sched_getaffinity', lambda _: {0, 1})
    assert np.array_equal(load(root, image_size=16).images, one)


@pytest.mark.parametrize('old, new, message', [
    ('2\t2\n', '', "line 1: expected the numbers of folds and of pairs, such as \"10 300\", got 'Ann 1 3'"),
    ('2\t2\n', '2\n', "line 1: expected the numbers of folds and of pairs, such as \"10 300\", got '2'"),
    ('2\t2\n', '0\t2\n', "line 1: expected the numbers of folds and of pairs, such as \"10 300\", got '0 2'"),
    (PAIRS, '', "line 1: expected the numbers of folds and of pairs, such as \"10 300\", got ''"),
    ('Cas\t1\t2\n', '', '2 folds of 2 + 2 pairs are 8 lines, got 7'),
    ('Cas\t1\t2\n', 'Cas\t1\tAnn\t2\n', "line 6: expected \"name i j\", got 'Cas 1 Ann 2'"),
    ('Ann\t1\tBob\t2', 'Ann\t1\t2', "line 4: expected \"name i name j\", got 'Ann 1 2'"),
    ('Ann\t1\tBob\t2', 'Ann\t1\tBob\ttwo', "line 4: expected \"name i name j\", got 'Ann 1 Bob two'"),
])
def test_a_list_of_another_form(root, old, new, message):
    path = root / 'pairs.txt'
    path.write_text(PAIRS.replace(old, new))
    with pytest.raises(InputError) as error:
        load(root)
    assert str(error.value).removeprefix(str(path)).lstrip(':, ') == message and '\n' not in str(error.value)


def test_images_that_are_missing_or_damaged(root):
    path = root / 'faces/Bob/Bob_0002.jpg'
    path.write_bytes(b'no image')
    with pytest.raises(InputError, match=f'^{path} cannot be read as an image \\(it is none of'):
        load(root)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf'^{path} of {root / "pairs.txt"} is missing \(1 of 9 images are\)$'):
        load(root)
    with pytest.raises(FileNotFoundError, match=f'^there is no file {root / "nowhere.txt"}$'):
        lfw_pairs(root / 'faces', root / 'nowhere.txt')


@pytest.mark.parametrize('folds', ([], [2], [-1, 0]))
def test_folds_that_are_not_there(root, folds):
    with pytest.raises(InputError, match=r'pairs.txt has the folds 0 to 1, got \['):
        load(root, folds=folds)


def test_the_list_of_the_real_lfw(lfw_pairs_file):
    number, pairs = read_pairs(lfw_pairs_file)
    same = np.array([pair.same for pair in pairs]).reshape(10, 2, 300)
    assert number == 10 and same[:, 0].all() and not same[:, 1].any()
    assert [pair.fold for pair in pairs] == [fold for fold in range(10) for _ in range(600)]
    assert all((pair.left[0] == pair.right[0]) == pair.same and pair.left != pair.right for pair in pairs)
    people = [{name for pair in pairs if pair.fold == fold for name, _ in pair[:2]} for fold in range(10)]
    assert sum(map(len, people)) == len(set.union(*people)) == 4281     # those of a fold are in no other


@pytest.mark.slow
def test_the_real_lfw(lfw, lfw_pairs_file):
    pairs = lfw_pairs(lfw, lfw_pairs_file, image_size=32)
    assert pairs.images.shape == (7701, 32, 32, 3) and len(pairs) == 6000 and pairs.same.sum() == 3000
    last = lfw_pairs_file.read_text().split('\n')[6000].split()
    files = [lfw / name / f'{name}_{int(number):04d}.jpg' for name, number in (last[:2], last[2:])]
    for row, file in zip((pairs.left[-1], pairs.right[-1]), files):
        assert np.array_equal(pairs.images[row], Image.open(file).resize((32, 32), Image.Resampling.BILINEAR))


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2's str, as InsightFace's files hold them."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_bytes(self, obj):
        self.write(b'T' + len(obj).to_bytes(4, 'little') + obj)          # opcode BINSTRING
        self.memoize(obj)

    dispatch[bytes] = save_bytes


def dump(path: Path, content: object, form: str = '4') -> Path:
    with open(path, 'wb') as file:
        Python2Pickler(file, 2).dump(content) if form == 'Python 2' else pickle.dump(content, file, int(form))
    return path


SAME = [True, False, False, True, True, False, True, False, True, False, False, True] * 5       # 60 pairs, 6 a fold
ROWS = [i * 7 % 50 for i in range(2 * len(SAME))]        # images come back


@pytest.mark.parametrize('form', ['Python 2', '0', '2', '3', '4'])
@pytest.mark.parametrize('holder', [bytes, lambda content: np.frombuffer(content, np.uint8)])
def test_a_bin_file(tmp_path, form, holder):
    path = dump(tmp_path / 'agedb_30.bin', ([holder(encoded(row)) for row in ROWS], SAME), form)
    pairs = bin_pairs(path, 16)
    assert pairs.name == 'agedb_30' and len(pairs.images) == 50
    assert pairs.same.tolist() == SAME and pairs.fold.tolist() == [i // 6 for i in range(60)]
    for i in range(60):
        assert np.array_equal(pairs.images[pairs.left[i]], pixels(encoded(ROWS[2 * i])))
        assert np.array_equal(pairs.images[pairs.right[i]], pixels(encoded(ROWS[2 * i + 1])))


def test_a_bin_file_at_another_size(tmp_path):
    path = dump(tmp_path / 'lfw.bin', [[encoded(row) for row in ROWS], SAME])
    pairs = bin_pairs(path, 8)
    assert np.array_equal(pairs.images[pairs.right[3]], pixels(encoded(ROWS[7]), 8))


class Code:
    def __reduce__(self):
        return os.mkdir, ('pwned',)


@pytest.mark.parametrize('content, message', [
    (([b'x'] * 120, Code()), ' is not a readable verification set (UnpicklingError('),
    (([Code()] * 120, SAME), ' is not a readable verification set (UnpicklingError('),
    (([np.zeros(3)] * 120, SAME), ' is not a readable verification set (UnpicklingError('),
    (([3] * 120, SAME), ' is not a readable verification set (TypeError('),
    (dict(images=1), ' is not a readable verification set (ValueError('),
    (([encoded(0)] * 120, SAME[:-1]), ': expected two images for each of at least 10 pairs, got 120 images and 59 pairs'),
    (([encoded(0)] * 18, SAME[:9]), ': expected two images for each of at least 10 pairs, got 18 images and 9 pairs'),
    (([encoded(0)] * 120, [2] * 60), ': expected a list of True and False behind the images'),
    (([encoded(0)] * 120, 60), ': expected a list of True and False behind the images'),
    (([encoded(0)] * 7 + [b'no image'] + [encoded(0)] * 112, SAME), ': image 7 cannot be read as an image ('),
    (([encoded(0)] * 7 + [encoded(1)[:200]] + [encoded(0)] * 112, SAME), ': image 7 cannot be read as an image ('),
])
def test_bin_files_that_are_refused(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    path = dump(tmp_path / 'lfw.bin', content)
    with pytest.raises(InputError) as error:
        bin_pairs(path, 16)
    assert str(error.value).startswith(f'{path}{message}') and '\n' not in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ['lfw.bin']


@pytest.mark.parametrize('content', [b'', b'no pickle', None])
def test_bin_files_that_are_damaged(tmp_path, content):
    path = dump(tmp_path / 'lfw.bin', ([encoded(row) for row in ROWS], SAME))
    path.write_bytes(path.read_bytes()[:-20] if content is None else content)
    with pytest.raises(InputError) as error:
        bin_pairs(path, 16)
    assert str(error.value).startswith(f'{path} is not a readable verification set (') and '\n' not in str(error.value)
    with pytest.raises(FileNotFoundError, match='^there is no file'):
        bin_pairs(tmp_path / 'nowhere.bin')
