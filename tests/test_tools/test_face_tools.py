"""tools/verify_faces.py, identify_faces.py and plot_similarity.py as a user calls them, on files in the official layouts."""
import json
import pickle
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import utils
from PIL import Image
from scipy.io import savemat
from tiny import config, crrcd, train, write_teacher
from torch.nn import functional as F

from mmcrrcd.datasets import bin_pairs, lfw_pairs, read_orl
from mmcrrcd.evaluation.classifier import load_classifier
from mmcrrcd.evaluation.identification import identify
from mmcrrcd.evaluation.margins import BINS, expectation_margin, histogram_intersection
from mmcrrcd.evaluation.verification import cosines, verify

PEOPLE, IMAGES, FOLDS, PAIRS = 6, 4, 3, 5


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, quality=95)
    return path


def face(person: int, number: int, side: int = 20) -> np.ndarray:
    """A person's color, with much noise that is not the same on the left and on the right."""
    rng = np.random.default_rng([person, number])
    noise = rng.integers(-70, 70, (side, side, 3)) + np.linspace(-20, 40, side).astype(int)[None, :, None]
    return (np.random.default_rng(person).integers(60, 190, 3) + noise).clip(0, 255).astype(np.uint8)


def write_lfw(folder: Path) -> None:
    for person in range(PEOPLE):
        for number in range(1, IMAGES + 1):
            write(folder / 'faces' / f'P{person}' / f'P{person}_{number:04}.jpg', face(person, number))
    rng, lines = np.random.default_rng(0), [f'{FOLDS}\t{PAIRS}']
    for _ in range(FOLDS):
        for _ in range(PAIRS):
            i, j = rng.choice(IMAGES, 2, replace=False) + 1
            lines.append(f'P{rng.integers(PEOPLE)}\t{i}\t{j}')
        for _ in range(PAIRS):
            (a, b), (i, j) = rng.choice(PEOPLE, 2, replace=False), rng.integers(1, IMAGES + 1, 2)
            lines.append(f'P{a}\t{i}\tP{b}\t{j}')
    (folder / 'pairs.txt').write_text('\n'.join(lines) + '\n')


def write_bin(path: Path) -> None:
    def encoded(image: np.ndarray) -> bytes:
        file = BytesIO()
        Image.fromarray(image).save(file, 'PNG')
        return file.getvalue()

    same = [i % 2 == 0 for i in range(40)]
    images = [encoded(face(who, 100 + 2 * i + side)) for i in range(40)
              for side, who in enumerate((i % PEOPLE, (i + (not same[i])) % PEOPLE))]
    path.write_bytes(pickle.dumps((images, same), protocol=2))


def write_tinyface(folder: Path) -> None:
    parts = (('gallery_match', 'gallery', 'Gallery_Match', (1, 2)), ('probe', 'probe', 'Probe', (3, )))
    for name, key, place, numbers in parts:
        files, ids = [], []
        for person in range(PEOPLE):
            for number in numbers:
                files.append(f'{person + 1}_{number}.jpg')
                ids.append(person + 1)
                write(folder / 'Testing_Set' / place / files[-1], face(person, number, 10 + number))
        pairs = {f'{key}_set': np.array(files, dtype=object)[:, None], f'{key}_ids': np.array(ids)[:, None]}
        savemat(folder / 'Testing_Set' / f'{name}_img_ID_pairs.mat', pairs)
    for number in range(7):
        write(folder / 'Testing_Set' / 'Gallery_Distractor' / f'd{number}.jpg', face(50 + number, 0, 9))


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A trained student for 8 of 16×16 px with its teacher, and small data sets of every kind."""
    folder = tmp_path_factory.mktemp('run')
    cfg = config(folder / 'student', crrcd(write_teacher(folder / 'teacher.pth')), epochs=1)
    cfg.dump(folder / 'student.py')
    train(cfg)
    write_lfw(folder)
    write_bin(folder / 'set.bin')
    write_tinyface(folder / 'tinyface')
    for person in range(1, 41):
        for number in range(1, 11):
            write(folder / 'orl' / f's{person}' / f'{number}.pgm', face(person, number, 12)[..., 0])
    return folder


@pytest.fixture
def tool(run, monkeypatch, capsys):
    """Runs a tool in the folder of the training, returns its output."""
    monkeypatch.chdir(run)

    def call(name: str, *args) -> str:
        utils.tool(name, *args)
        return capsys.readouterr().out
    return call


STUDENT, LFW = ('student.py', 'student'), ('--pairs', 'pairs.txt', '--images', 'faces')


def embeddings(images: np.ndarray, teacher: bool = False, flip: bool = False, **at) -> torch.Tensor:
    network = load_classifier('student.py', '' if teacher else 'student', teacher)
    network = network.at(**at) if at else network
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
    embedding = network(pixels).embedding
    return embedding + network(pixels.flip(3)).embedding if flip else embedding


@pytest.mark.parametrize('options, settings, pixels', [
    ([], {}, '16 x 16 -> 8 x 8'), (['--flip'], dict(flip=True), '16 x 16 -> 8 x 8'),
    (['--resolution', 4], dict(resolution=4, scale_to=8), '16 x 16 -> 4 x 4 -> 8 x 8'),
    (['--teacher', '--resolution', 8], dict(teacher=True, resolution=8, scale_to=16), '16 x 16 -> 8 x 8 -> 16 x 16')])
def test_verification(tool, options, settings, pixels):
    run = ('student.py', 'teacher.pth') if '--teacher' in options else STUDENT
    out = tool('verify_faces.py', *run, *LFW, *options, '--out', 'deep/lfw.json')
    result = json.loads(Path('deep/lfw.json').read_text())
    pairs = lfw_pairs('faces', 'pairs.txt', 16)
    expected = verify(cosines(embeddings(pairs.images, **settings), pairs.left, pairs.right), pairs.same, pairs.fold)
    assert result['accuracies'] == expected.accuracies and result['thresholds'] == pytest.approx(expected.thresholds)
    assert (result['accuracy'], result['standard_error']) == (expected.accuracy, expected.standard_error)
    assert (result['auc'], result['eer']) == pytest.approx((expected.roc.auc(), 100 * expected.roc.eer()))
    assert result['tar_at_far'] == {'0.001': None, '0.0001': None}               # of 15 negative pairs
    assert (result['images'], result['positive_pairs'], result['negative_pairs']) == (len(pairs.images), 15, 15)
    assert (result['pixels'], result['flip'], result['folds']) == (pixels, '--flip' in options, [0, 1, 2])
    assert result['network'] == ('teacher' if '--teacher' in options else 'student')
    assert {'command', 'versions', 'hardware'} <= set(result)
    assert f'30 pairs in 3 folds; pixels: {pixels}' in out and out.count('not measurable') == 2
    assert f'{expected.accuracy:.2f} ± {expected.standard_error:.2f} %' in out and f'{expected.roc.auc():.4f}' in out


def test_the_mirror_makes_a_difference(run, monkeypatch):
    monkeypatch.chdir(run)
    images = lfw_pairs('faces', 'pairs.txt', 16).images
    assert (F.normalize(embeddings(images)) - F.normalize(embeddings(images, flip=True))).abs().max() > 1e-3


def test_verification_of_some_folds_and_of_a_bin_file(tool):
    tool('verify_faces.py', *STUDENT, *LFW, '--folds', 2, 0, '--json', 'some.json')
    some = json.loads(Path('some.json').read_text())
    assert some['folds'] == [0, 2] and len(some['accuracies']) == 2 and some['positive_pairs'] == 10
    tool('verify_faces.py', *STUDENT, '--bin', 'set.bin', '--out', 'bin.json')
    result, pairs = json.loads(Path('bin.json').read_text()), bin_pairs('set.bin', 16)
    expected = verify(cosines(embeddings(pairs.images), pairs.left, pairs.right), pairs.same, pairs.fold)
    assert result['accuracies'] == expected.accuracies and len(result['accuracies']) == 10
    assert result['positive_pairs'] == result['negative_pairs'] == 20


def test_similarity(tool):
    out = tool('plot_similarity.py', *STUDENT, 'student.py', 'student/epoch_1.pth', '--labels', 'baseline', 'CRRCD', *LFW,
               '--out', 'pictures/similarity.png')
    assert Path('pictures/similarity.png').stat().st_size > 10_000
    result = json.loads(Path('pictures/similarity.json').read_text())
    pairs = lfw_pairs('faces', 'pairs.txt', 16)
    scores = cosines(embeddings(pairs.images), pairs.left, pairs.right)
    margin, common = expectation_margin(scores, pairs.same), histogram_intersection(scores, pairs.same)
    assert [row.pop('label') for row in result['networks']] == ['baseline', 'CRRCD'] and result['bins'] == BINS
    for row in result['networks']:
        assert row['expectation_margin'] == pytest.approx(margin) and row['histogram_intersection'] == pytest.approx(common)
        assert row['positive_mean'] - row['negative_mean'] == pytest.approx(margin)
        assert row['pixels'] == '16 x 16 -> 8 x 8'
    assert f'CRRCD: expectation margin {margin:.3f}, histogram intersection {common:.3f}; pixels: 16 x 16 -> 8 x 8' in out


def test_tinyface_is_seen_at_its_native_size(tool):
    """Resized straight to the 8 pixels of the student, not to 16 first; distractors among the faces searched."""
    out = tool('identify_faces.py', *STUDENT, '--tinyface', 'tinyface', '--out', 'tiny.json')
    result = json.loads(Path('tiny.json').read_text())

    def seen(names) -> torch.Tensor:
        images = [Image.open(Path('tinyface/Testing_Set') / name).resize((8, 8), Image.Resampling.BILINEAR) for name in names]
        network = load_classifier('student.py', 'student', side=8)
        return network(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)).embedding

    people = range(1, PEOPLE + 1)
    gallery = seen([f'Gallery_Match/{person}_{number}.jpg' for person in people for number in (1, 2)])
    probe = seen([f'Probe/{person}_3.jpg' for person in people])
    others = seen([f'Gallery_Distractor/d{number}.jpg' for number in range(7)])
    ids = torch.tensor(people)
    expected = identify(gallery, ids.repeat_interleave(2), probe, ids, [others])
    for k in (1, 10, 20):
        assert result[f'rank-{k}'] == pytest.approx(expected.rank(k))
    assert result['mAP'] == pytest.approx(expected.mean_average_precision) and result['mAP'] < 100
    assert (result['probes'], result['gallery'], result['distractors'], result['pixels']) == (PEOPLE, 2 * PEOPLE, 7, '8 x 8')
    assert 'TinyFace: 6 probes, each among 19 faces; pixels: 8 x 8' in out and f'{result["mAP"]:.2f} %' in out


def test_tinyface_by_a_teacher_on_small_images_scaled_up(tool):
    tool('identify_faces.py', 'student.py', 'teacher.pth', '--teacher', '--resolution', 8, '--tinyface', 'tinyface', '--flip',
         '--out', 'naive.json')
    result = json.loads(Path('naive.json').read_text())
    assert (result['pixels'], result['network'], result['flip']) == ('8 x 8 -> 16 x 16', 'teacher', True)


@pytest.mark.parametrize('number', [1, 4])
def test_orl(tool, number):
    tool('identify_faces.py', *STUDENT, '--orl', 'orl', '--gallery-images', number, '--out', 'orl.json')
    result, faces = json.loads(Path('orl.json').read_text()), read_orl('orl')
    x, ids = embeddings(faces.images(16)), torch.from_numpy(faces.ids)
    first = torch.arange(400) % 10 < number
    expected = identify(x[first], ids[first], x[~first], ids[~first])
    assert (result['gallery'], result['probes'], result['distractors']) == (40 * number, 400 - 40 * number, 0)
    assert [result[f'rank-{k}'] for k in (1, 10, 20)] == pytest.approx([expected.rank(k) for k in (1, 10, 20)])
    assert result['mAP'] == pytest.approx(expected.mean_average_precision)
    assert 0 < result['rank-1'] < result['rank-20'] and result['pixels'] == '16 x 16 -> 8 x 8'


def test_linear_probe_on_uccs(tool):
    for person in range(3):
        for number in range(8):
            write(Path(f'uccs/P{person}/{number}.png'), face(person, number))
    for split, numbers in (('train', range(6)), ('test', (6, 7))):
        Path(f'uccs/{split}.txt').write_text(''.join(f'P{person}/{number}.png\n' for person in range(3) for number in numbers))
    tool('linear_probe.py', *STUDENT, '--dataset', 'uccs', '--data-root', 'uccs', '--seeds', 1, '--json', 'uccs.json')
    result = json.loads(Path('uccs.json').read_text())
    assert (result['classes'], result['images']) == (3, dict(train=18, test=6))
    assert result['pixels'] == '112 x 112 -> 16 x 16 -> 8 x 8'


VERIFY, IDENTIFY, PLOT = 'verify_faces.py', 'identify_faces.py', 'plot_similarity.py'
EITHER = 'the faces are either --pairs FILE --images DIR, with --folds or without, or --bin FILE'


@pytest.mark.parametrize('name, args, message', [
    (VERIFY, STUDENT, EITHER), (VERIFY, [*STUDENT, *LFW, '--bin', 'set.bin'], EITHER),
    (VERIFY, [*STUDENT, '--pairs', 'pairs.txt'], EITHER), (VERIFY, [*STUDENT, '--bin', 'set.bin', '--folds', '0'], EITHER),
    (VERIFY, [*STUDENT, *LFW, '--folds', '1'], 'expected two or more folds, one number for each of the 10 pairs, got 1'),
    (VERIFY, [*STUDENT, *LFW, '--resolution', '17'], '--resolution goes from 1 to the 16 pixels of the images, got 17'),
    (VERIFY, [*STUDENT, *LFW, '--resolution', '0'], '--resolution goes from 1 to the 16 pixels of the images, got 0'),
    (VERIFY, ['student.py', 'nothing', *LFW], 'no checkpoint at nothing'),
    (VERIFY, [*STUDENT, '--bin', 'student.py'], 'student.py is not a readable verification set'),
    (IDENTIFY, [*STUDENT, '--orl', 'faces'], 'faces/s1/1.pgm of ORL is missing (400 of 400 images are)'),
    (IDENTIFY, [*STUDENT, '--orl', 'orl', '--gallery-images', '10'],
     'images of a person in the gallery go from 1 to 9, got 10'),
    (IDENTIFY, [*STUDENT, '--orl', 'orl', '--gallery-images', '0'], 'images of a person in the gallery go from 1 to 9, got 0'),
    (IDENTIFY, [*STUDENT, '--tinyface', 'faces'], 'there is no file faces/Testing_Set/gallery_match_img_ID_pairs.mat'),
    (PLOT, ['student.py', *LFW], 'a CHECKPOINT follows each CONFIG, got student.py'),
    (PLOT, [*STUDENT, *STUDENT, *LFW], '2 networks need as many different --labels, got student, student'),
    (PLOT, [*STUDENT, *LFW, '--labels', 'a', 'b'], '1 networks need as many different --labels, got a, b'),
])
def test_bad_input_is_one_line(tool, name, args, message):
    with pytest.raises(SystemExit) as error:
        tool(name, *args)
    assert str(error.value).startswith(f'error: {message}') and '\n' not in str(error.value)
