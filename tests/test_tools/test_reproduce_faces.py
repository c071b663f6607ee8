"""tools/reproduce.py table5, table6 and table7: the config of a cell, missing data, a small table from training to page."""
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image
from scipy.io import savemat

from mmcrrcd.checkpoint import safe_load
from mmcrrcd.datasets import lfw_pairs
from mmcrrcd.errors import InputError
from mmcrrcd.evaluation.embeddings import embed_images, load_classifier
from mmcrrcd.evaluation.verification import cosines, verify
from mmcrrcd.registry import MODELS

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / 'tools'), str(ROOT / 'benchmarks')]

import face_tables  # noqa: E402
import cells  # noqa: E402
import recipes  # noqa: E402
import render  # noqa: E402
import reproduce  # noqa: E402
import reproduced  # noqa: E402
from face_tables import FACE_TABLES, FaceResults  # noqa: E402
from recipes import Recipe  # noqa: E402

RECIPE = Recipe('face_35e', None, 16)
METHODS, PAIRS = face_tables.METHODS['webface'], face_tables.PAIRS['webface']
LOSSES = dict(kd={'kd'}, crd={'crd'}, skd={'skd'}, horkd={'horkd'})


@pytest.mark.parametrize('pair', PAIRS, ids='-'.join)
@pytest.mark.parametrize('method', METHODS)
def test_the_config_of_a_cell(method, pair):
    cfg = recipes.face(method, pair, RECIPE)
    restored = pair[1].endswith('_restored') or method == 'naive'
    assert cfg.model.data_preprocessor.resolution == 16 and cfg.model.data_preprocessor.get('restore', False) == restored
    assert cfg.train_dataloader.dataset.data_root == 'data/casia_webface' and cfg.train_cfg.max_epochs == 35
    if method in ('student', 'naive'):
        assert 'teacher' not in cfg.model
    else:
        assert cfg.model.teacher_checkpoint == 'work_dirs/iresnet50_webface' and cfg.model.teacher.backbone.depth == 50
        assert set(cfg.model.get('objective', {})) == LOSSES.get(method, set())
        assert cfg.model.type.split('.')[-1] == ('CRRCD' if method == 'crrcd' else 'Distiller')
    if method == 'naive':
        teacher = recipes.teacher_recipe('iresnet50', RECIPE, 'webface')
        assert cfg.model.student == teacher.model.student and teacher.model.data_preprocessor.get('resolution') is None
    else:
        assert cfg.model.student.backbone.depth == 18
        assert cfg.model.student == recipes.face('student', pair, RECIPE).model.student
    MODELS.get(cfg.model.type)


@pytest.mark.parametrize('method, pair', FACE_TABLES['lfw'].cells(), ids=str)
def test_the_config_of_a_cell_of_lfw(method, pair):
    cfg = recipes.face(method, pair, RECIPE, 'lfw')
    data, reduction = cfg.train_dataloader.dataset, cfg.model.data_preprocessor
    assert data.data_root == 'data/lfw/lfw' and data.exclude_folds == [8, 9] and cfg.model.student.head.num_classes == 1334
    assert data.image_size == face_tables.PIXELS_OF_THE_TEACHER['lfw'] == cfg.model.input_size
    if method in face_tables.TEACHER_ALONE:
        assert cfg.model.student == recipes.load('face/iresnet18_lfw').model.student
        assert (reduction.get('resolution'), reduction.get('restore')) == ((16, True) if method == 'naive' else (None, None))
    else:
        assert reduction.resolution == 16 and reduction.get('restore', False) == pair[1].endswith('_restored')
        assert cfg.model.get('teacher_checkpoint') == (None if method == 'student' else 'work_dirs/iresnet18_lfw')
    MODELS.get(cfg.model.type)


def test_a_shorter_schedule_in_proportion():
    for cfg in (recipes.face('skd', PAIRS[1], Recipe('face_35e', 70, 16, True)),
                recipes.teacher_recipe('iresnet50', Recipe('face_35e', 70, 16, True), 'webface')):
        assert cfg.train_cfg.max_epochs == 70 and cfg.param_scheduler.milestones == [42, 56, 64]
        assert cfg.optim_wrapper.type == 'mmcrrcd.BF16OptimWrapper' and cfg.optim_wrapper.optimizer.lr == 0.02


@pytest.mark.parametrize('name, missing', dict(
    table5="data/casia_webface (CASIA-WebFace), data/lfw/pairs.txt (LFW's list of pairs), data/lfw/lfw (LFW's faces)",
    table6='data/casia_webface (CASIA-WebFace), data/uccs (180 people of UCCS)',
    table7="data/casia_webface (CASIA-WebFace), data/tinyface/Training_Set (TinyFace's training set), data/tinyface (TinyFace)",
    orl="data/lfw/lfw (LFW's faces), data/lfw/pairs.txt (LFW's list of pairs), data/orl/orl (ORL)",
    ).items())
def test_missing_data_is_one_line_before_any_training(name, missing, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reproduced, 'RESULTS', tmp_path / 'results')
    monkeypatch.setattr(subprocess, 'Popen', None)
    cells.teacher_run.cache_clear()
    with pytest.raises(SystemExit) as error:
        reproduce.main([name, '--seeds', '1'])
    assert error.value.code == (f'error: missing: {missing}; what lies where is in docs/data.md, what it may be used for in '
                                'configs/face/README.md')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('command, message', [
    (['--schedule', 'paper_35e'], 'table5 is of 16 pixels with the schedule face_35e: leave --schedule and --resolution away'),
    (['--resolution', '8'], 'leave --schedule and --resolution away'),
    (['--sweep', 'tau'], '--cell is for tables, --sweep and --pair for fig3'),
    (['--cell', 'ekd/iresnet50_resnet18'], 'has the methods student, naive, kd, crd, skd, horkd, crrcd; say'),
    (['--cell', 'kd/resnet18'], 'kd has the pairs iresnet50_resnet18, iresnet50_resnet18_restored'),
])
def test_a_wrong_request_is_one_line(command, message):
    with pytest.raises(SystemExit, match=re.escape(message)):
        reproduce.main(['table5', *command])


def test_a_teacher_on_small_images_stands_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(reproduced, 'RESULTS', tmp_path / 'results')
    cells.teacher_run.cache_clear()
    wanted = reproduce.chosen(FACE_TABLES['table5'], None)
    found = [cells.FaceCell('table5', method, pair, RECIPE, [5, 6]) for method, pair in wanted]
    found = {cell.file.name: cell for cell in found}
    assert len(found) == 2 * len(METHODS) - 1
    naive, kd = found['naive__iresnet50__16px__face_35e.json'], found['kd__iresnet50_resnet18_restored__16px__face_35e.json']
    assert list(naive.runs) == [5] and list(kd.runs) == [5, 6]
    assert naive.runs[5].needs is kd.runs[5].needs.needs is naive.teacher
    assert naive.teacher.folder == Path('work_dirs/iresnet50_webface')


# ---- the page

def record(method: str, pair: str, **numbers) -> dict:
    about = dict(hardware='a GPU', threads=1, versions=dict(torch='2'), command='python tools/reproduce.py table7')
    seeds = {str(5 + i): dict(evaluation={key: values[i] for key, values in numbers.items()}, **about)
             for i in range(len(next(iter(numbers.values()))))}
    return dict(method=method, pair=pair, batch=96, lr=0.02, precision='float32', seeds=seeds, teacher=None)


def row(page: str, name: str) -> list[str]:
    line, = [line for line in page.splitlines() if line.startswith(f'| {name} |')]
    return [cell.strip() for cell in line.split('|')[2:-1]]


def test_without_a_run_the_papers_numbers_stand_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduced, 'RESULTS', tmp_path)
    page = FaceResults.all_markdown('table5')
    assert row(page, 'CRRCD †') == row(page, 'CRRCD †, scaled up') == ['not run<br>paper 95.25']
    assert row(page, 'teacher on 16 pixels scaled up') == ['not run<br>paper 92.30']
    assert row(page, 'KD') == row(page, 'student alone') == ['not run']
    assert row(FaceResults.all_markdown('table6'), 'HORKD †') == ['not run<br>paper 92.11']
    assert row(FaceResults.all_markdown('table7'), 'CRRCD †') == [
        *(f'not run<br>paper {n}.00' for n in (35, 47, 50)), 'not run']
    assert row(FaceResults.all_markdown('orl'), 'teacher') == ['not run'] * 4
    for name in FACE_TABLES:
        assert render.rendered(f'<!-- begin {name} -->\n<!-- end {name} -->') == (
            f'<!-- begin {name} -->\n{FaceResults.all_markdown(name)}\n<!-- end {name} -->')


def test_only_what_compares_is_marked(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduced, 'RESULTS', tmp_path)

    def page(table, label, one):
        (tmp_path / table).mkdir(exist_ok=True)
        (tmp_path / table / f'{one["method"]}__{one["pair"]}__{label}.json').write_text(json.dumps(one))
        return FaceResults.read(table, label).markdown()

    crrcd = ('crrcd', 'iresnet50_resnet18_restored')
    full = page('table5', '16px__face_35e', record(*crrcd, accuracy=[95.0, 96.0]))
    assert row(full, 'CRRCD †, scaled up') == ['95.50 ± 0.71 (n = 2)<br>paper 95.25: ▲ +0.25']
    assert row(full, 'CRRCD †') == ['not run<br>paper 95.25']
    short = page('table5', '16px__face_35e_in_2e', record('naive', 'iresnet50', accuracy=[60.0]))
    assert row(short, 'teacher on 16 pixels scaled up') == ['60.00 (n = 1)<br>paper 92.30: -32.30']
    assert 'shortened to 2 epochs' in short and 'nothing here is comparable' in short
    assert FaceResults.all_markdown('table5') == f'{full}\n{short}'
    other = page('table6', '16px__face_35e', record(*crrcd, mean=[98.0]))
    assert row(other, 'CRRCD †, scaled up') == ['98.00 (n = 1)<br>paper 97.27: +0.73']
    numbers = {'rank-1': [36.0], 'rank-10': [40.0], 'rank-20': [50.0], 'mAP': [20.0]}
    retrieval = page('table7', '16px__face_35e', record(*crrcd, **numbers))
    assert row(retrieval, 'CRRCD †, scaled up') == [
        '36.00 (n = 1)<br>paper 35.00: +1.00', '40.00 (n = 1)<br>paper 47.00: -7.00', '50.00 (n = 1)<br>paper 50.00: +0.00',
        '20.00 (n = 1)']


# ---- small data in the official layouts, small networks

PEOPLE = 8
TINY_NETWORKS = '''
tiny = dict(type=ResNet_CIFAR, depth=18, zero_init_residual=False, out_indices=(0, 1, 2, 3), stem_channels=16, base_channels=16)
for network, side in ((iresnet50, 7), (resnet18, 7), (resnet18_16px, 2)):
    network.update(backbone=dict(tiny, strides=(2, 2, 2, 2) if side == 7 else (1, 2, 2, 2)),
                   neck=dict(type=EmbeddingNeck, in_channels=128, map_size=side))
    network['head'] = dict(arcface, num_classes=8)
'''


def write(path: Path, person: int, number: int, side: int) -> None:
    rng = np.random.default_rng([person, number])
    pixels = np.random.default_rng(person).integers(60, 190, 3) + rng.integers(-60, 60, (side, side, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)


def write_data(root: Path) -> None:
    for person in range(PEOPLE):
        for number in range(1, 13):
            write(root / 'casia_webface' / f'{person:07}' / f'{number:03}.jpg', person, number, 112)
            write(root / 'lfw' / 'lfw' / f'P{person}' / f'P{person}_{number:04}.jpg', 100 + person, number, 112)
    pairs = [line for fold in range(10) for line in (
        *(f'P{(fold + i) % PEOPLE}\t{i + 1}\t{i + 2}' for i in range(4)),
        *(f'P{(fold + i) % PEOPLE}\t{i + 1}\tP{(fold + i + 1) % PEOPLE}\t{i + 2}' for i in range(4)))]
    (root / 'lfw' / 'pairs.txt').write_text('\n'.join(['10\t4', *pairs]) + '\n')
    lists = dict(train=range(1, 5), test=(5, 6))
    for split, numbers in lists.items():
        names = [f'{person}/{number}.png' for person in range(PEOPLE) for number in numbers]
        for name in names:
            person, number = name.removesuffix('.png').split('/')
            write(root / 'uccs' / name, int(person), int(number), 40)
        (root / 'uccs' / f'{split}.txt').write_text('\n'.join(names) + '\n')
    tests = root / 'tinyface' / 'Testing_Set'
    for name, key, place, number in (('gallery_match', 'gallery', 'Gallery_Match', 1), ('probe', 'probe', 'Probe', 2)):
        files = [f'{person}_{number}.jpg' for person in range(PEOPLE)]
        for person, file in enumerate(files):
            write(tests / place / file, person, number, 20)
        savemat(tests / f'{name}_img_ID_pairs.mat', {f'{key}_set': np.array(files, dtype=object)[:, None],
                                                     f'{key}_ids': np.arange(PEOPLE)[:, None]})
    for number in range(5):
        write(tests / 'Gallery_Distractor' / f'd{number}.jpg', 50 + number, 0, 20)
    for person in range(6):
        for number in range(5):
            write(root / 'tinyface' / 'Training_Set' / f'{person}' / f'{number}.jpg', 70 + person, number, 20)


@pytest.fixture
def tiny_faces(tmp_path, monkeypatch):
    configs = tmp_path / 'configs'
    shutil.copytree(ROOT / 'configs', configs)
    networks, data = configs / '_base_' / 'face_networks.py', configs / '_base_' / 'datasets' / 'casia_webface.py'
    networks.write_text(networks.read_text() + TINY_NETWORKS)
    data.write_text(data.read_text().replace('batch_size=96', 'batch_size=24'))
    write_data(tmp_path / 'data')
    monkeypatch.setattr(recipes, 'CONFIGS', configs)
    monkeypatch.setattr(reproduced, 'RESULTS', tmp_path / 'results')
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.chdir(tmp_path)
    cells.teacher_run.cache_clear()
    cells.about_the_teacher.cache_clear()
    return tmp_path


def call(monkeypatch, *command: str) -> None:
    cells.teacher_run.cache_clear()                      # as in a new process
    monkeypatch.setattr(sys, 'argv', ['reproduce.py', *command])
    reproduce.main([*command, '--seeds', '1', '--epochs', '1'])


@pytest.mark.parametrize('pair', PAIRS, ids='-'.join)
def test_a_training_goes_on_by_another_config(pair):
    cfg = recipes.face('crrcd', pair, Recipe('face_35e', 7, 16))
    cfg.randomness.seed = 6
    new = recipes.further('face/resnet18_tinyface_16px', cfg, Path('run/epoch_7.pth'), Recipe('face_35e', 7, 16, True))
    student, own = new.model.student, recipes.load('face/resnet18_tinyface_16px')
    assert student.backbone == cfg.model.student.backbone and student.neck == cfg.model.student.neck
    assert student.head.num_classes == 2570 and cfg.model.student.head.num_classes == 10_575
    assert student.init_cfg == dict(type='Pretrained', checkpoint='run/epoch_7.pth', prefix='student')
    assert 'teacher' not in new.model and new.train_cfg.max_epochs == 7 and new.randomness.seed == 6
    assert new.optim_wrapper.optimizer.lr == 0.002 and new.optim_wrapper.type == 'mmcrrcd.BF16OptimWrapper'
    restored = pair[1].endswith('_restored')
    assert new.train_dataloader.dataset.image_size == new.model.input_size == (112 if restored else 16)
    assert new.model.data_preprocessor == (cfg if restored else own).model.data_preprocessor


def test_networks_and_memory_are_as_large_as_the_data(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for person, number in (('a', 2), ('b', 3), ('empty', 0)):
        (tmp_path / 'data/casia_webface' / person).mkdir(parents=True)
        for image in range(number):
            (tmp_path / 'data/casia_webface' / person / f'{image}.jpg').touch()
    recipes.people_and_images.cache_clear()
    cfg = recipes.face('crd', PAIRS[0], Recipe('face_35e', None, 16))
    recipes.people_and_images.cache_clear()
    assert cfg.model.student.head.num_classes == cfg.model.teacher.head.num_classes == 2
    assert cfg.model.objective.crd.num_samples == 5


@pytest.mark.slow
def test_tables_from_teacher_to_page(tiny_faces, monkeypatch, capsys):
    named = ('--cell', 'kd/iresnet50_resnet18', 'naive/iresnet50_resnet18')
    call(monkeypatch, 'table5', *named)
    results, work = tiny_faces / 'results', Path('work_dirs/reproduce')
    kd = json.loads((results / 'table5' / 'kd__iresnet50_resnet18__16px__face_35e_in_1e.json').read_text())
    naive = json.loads((results / 'table5' / 'naive__iresnet50__16px__face_35e_in_1e.json').read_text())
    assert kd['teacher'] == naive['teacher'] and kd['teacher']['epochs'] == 1
    assert (kd['epochs'], kd['resolution'], kd['batch'], kd['lr'], kd['schedule']) == (1, 16, 24, 0.02, 'face_35e')
    seed = kd['seeds']['5']
    assert {'hardware', 'versions', 'threads', 'seconds'} <= seed.keys()
    assert seed['command'].startswith('python reproduce.py table5')
    assert seed['evaluation']['pixels'] == '112 x 112 -> 16 x 16'
    assert naive['seeds']['5']['evaluation']['pixels'] == '112 x 112 -> 16 x 16 -> 112 x 112'
    assert Config.fromstring(kd['config'], '.py').model.objective.kd.weight == 0.5

    # the tool's number is that of the trained student, which nothing of the table has touched
    folder = work / 'faces' / 'webface' / 'kd__iresnet50_resnet18__16px__face_35e_in_1e' / 'seed5'
    pairs, network = lfw_pairs('data/lfw/lfw', 'data/lfw/pairs.txt'), load_classifier(str(folder / 'config.py'), str(folder))
    result = verify(cosines(embed_images(network, pairs.images, ''), pairs.left, pairs.right), pairs.same, pairs.fold)
    assert seed['evaluation']['accuracy'] == pytest.approx(result.accuracy)
    page = (results / 'table5__16px__face_35e_in_1e.md').read_text()
    assert row(page, 'KD') == [f'{result.accuracy:.2f} (n = 1)'] and row(page, 'CRD') == ['not run']
    assert ' 1 epochs.' in page and 'Training: batch 24, learning rate 0.02, float32.' in page

    # the other tables test the same networks again, without a training and its data, a student without its teacher
    shutil.rmtree('data/casia_webface')
    trained, teacher = (folder / 'about.jsonl').read_text(), work / 'teachers' / 'iresnet50_webface_in_1e'
    teacher.rename('away')
    call(monkeypatch, 'table6', *named[:2])
    Path('away').rename(teacher)
    capsys.readouterr()
    call(monkeypatch, 'table7', named[0], named[2])
    assert 'cells: 1; runs to go: 1,' in capsys.readouterr().out
    call(monkeypatch, 'table7', *named[:2])              # trains further first
    assert 'cells: 1; runs to go: 2,' in capsys.readouterr().out
    further = safe_load(folder / 'resnet18_tinyface_16px' / 'epoch_1.pth')['state_dict']
    before = safe_load(folder / 'epoch_1.pth')['state_dict']
    assert further['student.head.weight'].shape[0] == 6 and before['student.head.weight'].shape[0] == 8
    assert not any(key.startswith('teacher') for key in further)
    tested = json.loads((results / 'table7' / 'kd__iresnet50_resnet18__16px__face_35e_in_1e.json').read_text())
    assert tested['teacher'] == kd['teacher'] and 0 < tested['seeds']['5']['evaluation']['rank-20'] <= 100
    assert Config.fromfile(folder / 'table7' / 'config.py').model.student.head.num_classes == 6
    first = 'student.backbone.conv1.weight'              # it has gone on, a step further, and not begun anew
    assert 0 < (further[first] - before[first]).abs().max() < 0.01 * before[first].abs().max()
    for file, number in (('table6/kd__iresnet50_resnet18', 'mean'), ('table7/naive__iresnet50', 'rank-20')):
        found = json.loads((results / f'{file}__16px__face_35e_in_1e.json').read_text())
        assert 0 < found['seeds']['5']['evaluation'][number] <= 100 and found['teacher'] == kd['teacher']
    assert found['seeds']['5']['evaluation']['pixels'] == '16 x 16 -> 112 x 112'
    assert (folder / 'about.jsonl').read_text() == trained

    with monkeypatch.context() as patch:                 # what is finished is not touched again
        patch.setattr(subprocess, 'Popen', None)
        call(patch, 'table5', *named)
    with pytest.raises(InputError, match='is of a run with other settings'):
        cells.FaceCell('table5', 'kd', PAIRS[0], Recipe('face_35e', 1, 16, True), [5])
    (folder / 'teacher.json').write_text(json.dumps(kd['teacher'] | dict(sha256='another')))
    (results / 'table7' / 'kd__iresnet50_resnet18__16px__face_35e_in_1e.json').unlink()
    cells.teacher_run.cache_clear()
    with pytest.raises(InputError, match='seed5 is of another teacher than that of .*iresnet50_webface_in_1e: move it away'):
        cells.FaceCell('table7', 'kd', PAIRS[0], Recipe('face_35e', 1, 16), [5])


@pytest.mark.slow
def test_tables_of_networks_trained_on_lfw(tiny_faces, monkeypatch):
    base = tiny_faces / 'configs' / '_base_' / 'face_networks.py'
    base.write_text(base.read_text().replace('in ((iresnet50, 7),', 'in ((iresnet18, 7),'))
    for file in (tiny_faces / 'configs' / 'face').glob('*_lfw*.py'):
        file.write_text(file.read_text().replace('num_classes=1334', 'num_classes=6'))
    for person in range(20, 24):                         # whom no pair names: left to train on, like two of the others
        for number in range(1, 13):
            write(Path(f'data/lfw/lfw/Q{person}/Q{person}_{number:04}.jpg'), 100 + person, number, 90)
    for person in range(1, 41):
        for number in range(1, 11):
            write(Path(f'data/orl/orl/s{person}/{number}.png'), person, number, 30)
            with Image.open(f'data/orl/orl/s{person}/{number}.png') as image:
                image.convert('L').save(f'data/orl/orl/s{person}/{number}.pgm')
    named = ('--cell', 'teacher/iresnet18_resnet18', 'crrcd/iresnet18_resnet18_restored')
    call(monkeypatch, 'lfw', *named)
    call(monkeypatch, 'orl', *named)
    results = tiny_faces / 'results'
    page, orl = ((results / f'{name}__16px__face_35e_in_1e.md').read_text() for name in ('lfw', 'orl'))
    for name, pixels in dict(teacher__iresnet18='64 x 64',
                             crrcd__iresnet18_resnet18_restored='64 x 64 -> 16 x 16 -> 64 x 64').items():
        found = json.loads((results / 'lfw' / f'{name}__16px__face_35e_in_1e.json').read_text())
        assert found['seeds']['5']['evaluation']['pixels'] == pixels
    for name in ('teacher', 'CRRCD †, scaled up'):
        assert all(cell.endswith('(n = 1)') for cell in [*row(page, name), *row(orl, name)])
    assert row(page, 'KD') == ['not run', 'not run'] and 'nothing here is comparable' not in page
