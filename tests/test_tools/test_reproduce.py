"""tools/reproduce.py: the config of a cell; a small table and a sweep of Figure 3, from the first training to the picture."""
import inspect
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS
from torch.nn import functional as F

from mmcrrcd.checkpoint import find_checkpoint, safe_load
from mmcrrcd.datasets import ImageArrays
from mmcrrcd.engine.hooks import critic_watch
from mmcrrcd.errors import InputError
from mmcrrcd.evaluation import embeddings
from mmcrrcd.evaluation.embeddings import Classifier, load_classifier, own_images
from mmcrrcd.models import CRRCD
from mmcrrcd.registry import DATASETS
from mmcrrcd.structures import Stream

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / 'tools'), str(ROOT / 'benchmarks')]

import figure3  # noqa: E402
import in_step  # noqa: E402
import linear_probe as linear_probe_tool  # noqa: E402
import low_resolution  # noqa: E402
import cells  # noqa: E402
import recipes  # noqa: E402
import reproduce  # noqa: E402
import reproduced  # noqa: E402
import runs  # noqa: E402
import transfer  # noqa: E402
from paper_tables import PAPER_TABLES, PaperTable  # noqa: E402
from recipes import Recipe, compose, teacher_recipe  # noqa: E402

R56_R20, MOBILE = ('resnet56', 'resnet20'), ('wrn50', 'shufflenetv1')


def milestones(cfg: Config) -> list[list[int]]:
    schedulers = cfg.param_scheduler if isinstance(cfg.param_scheduler, list) else [cfg.param_scheduler]
    return [scheduler.milestones for scheduler in schedulers]


@pytest.mark.parametrize('method', ['kd', 'ab', 'ft', 'crcd', 'dkd', 'sskd', 'ekd'])
def test_on_its_own_pair_a_method_is_its_config(method):
    own, cell = recipes.load(f'baselines/{method}'), compose(method, R56_R20, Recipe())
    assert cell.model.to_dict() == own.model.to_dict()
    for key in ('train_cfg', 'param_scheduler', 'optim_wrapper', 'train_dataloader', 'randomness'):
        assert cell[key] == own[key]


def test_crrcd_and_the_student_alone():
    assert compose('crrcd', MOBILE, Recipe()).to_dict() == recipes.load('crrcd/wrn50_shufflenetv1_cifar100').to_dict()
    cell, own = compose('student', MOBILE, Recipe()), recipes.load('students/shufflenetv1_cifar100')
    assert 'teacher' not in cell.model and cell.model.type.endswith('Distiller')
    for key in ('student', 'data_preprocessor'):
        assert cell.model[key] == own.model[key]
    for key in ('train_cfg', 'param_scheduler', 'optim_wrapper', 'train_dataloader'):
        assert cell[key] == own[key]


def test_a_pair_keeps_its_networks_and_learning_rate():
    pair = recipes.load('crrcd/wrn50_shufflenetv1_cifar100')
    cell = compose('ab', MOBILE, Recipe(resolution=8, amp=True), seed=7)
    assert cell.model.student == pair.model.student and cell.model.teacher == pair.model.teacher
    assert cell.model.teacher_checkpoint == 'work_dirs/wrn50_cifar100'
    assert cell.optim_wrapper.optimizer.lr == 0.01 and cell.optim_wrapper.type == 'mmcrrcd.BF16OptimWrapper'
    assert cell.model.data_preprocessor.resolution == 8 and cell.randomness.seed == 7
    assert cell.train_cfg.max_epochs == 270 and milestones(cell) == [[180, 210, 240]]
    assert cell.model.cls_weight == [(0, 0), (30, 0), (30, 1)]
    assert set(cell.model.objective) == {'ab'} and 'alpha' not in cell.model


@pytest.mark.parametrize('pair, beta', [
    (R56_R20, 2), (('resnet110', 'resnet32'), 2), (('wrn40_2', 'wrn16_2'), 6), (('wrn40_2', 'wrn40_1'), 6),
    (('vgg13', 'vgg8'), 6), (('resnet32x4', 'resnet8x4'), 8)])
def test_beta_of_dkd_is_that_of_the_pair(pair, beta):
    assert compose('dkd', pair, Recipe()).model.objective.dkd.beta == beta


def test_the_paraphraser_learns_more_slowly_beside_a_resnet_or_wrn():
    assert milestones(compose('ft', R56_R20, Recipe())) == [[180, 210, 240], [0], [30]]
    for pair in PAPER_TABLES['table2'].pairs:
        assert milestones(compose('ft', pair, Recipe())) == [[180, 210, 240]]


@pytest.mark.parametrize('method, recipe, epochs, steps', [
    ('kd', Recipe('paper_35e'), 35, [[21, 28, 32]]),
    ('crrcd', Recipe('paper_35e', epochs=70), 70, [[42, 56, 64]]),
    ('kd', Recipe(epochs=24), 24, [[15, 18, 21]]),
    ('ab', Recipe(epochs=24), 27, [[18, 21, 24]]),
    ('ab', Recipe('paper_35e'), 39, [[25, 32, 36]]),
    ('ft', Recipe(epochs=24), 27, [[18, 21, 24], [0], [3]]),
    ('sskd', Recipe(epochs=24), 30, [[3, 4, 21, 24, 27], [6]]),
    ('ab', Recipe(epochs=1), 2, [[2, 2, 2]]),
])
def test_a_schedule_is_scaled_as_a_whole(method, recipe, epochs, steps):
    cell = compose(method, R56_R20, recipe)
    assert cell.train_cfg.max_epochs == epochs and milestones(cell) == steps
    assert cell.train_dataloader.batch_size == (96 if recipe.schedule == 'paper_35e' else 64)


def test_so_are_weights_and_stages():
    short = Recipe(epochs=24)
    assert compose('ab', R56_R20, short).model.objective.ab.weight == [(0, 1), (3, 1), (3, 0)]
    assert compose('crcd', R56_R20, short).model.objective.crcd.weight == [(0, 1), (23, 1), (23, 0)]
    assert compose('crcd', R56_R20, short).model.objective.kd.weight == [(0, 0.9), (23, 0.9), (23, 0)]
    for epochs, last in ((12, 11), (35, 34), (2, 1), (1, 1)):         # off for an epoch at least, where there are two
        off = compose('crcd', R56_R20, Recipe(epochs=epochs)).model.objective.crcd.weight
        assert off == [(0, 1), (last, 1), (last, 0)]
    assert compose('dkd', R56_R20, short).model.objective.dkd.weight == [(0, 0.05), (2, 1)]
    assert compose('sskd', R56_R20, short).model.head_epochs == 6
    ft = compose('ft', R56_R20, short).model
    assert ft.objective.ft.paraphraser_epochs == 3 and ft.objective.ft.weight == [(0, 1), (3, 1), (3, 200)]
    assert ft.cls_weight == [(0, 0), (3, 0), (3, 1)]
    # and what is no schedule stays
    assert compose('kd', R56_R20, short).model.data_preprocessor.mean == [129.31, 124.11, 112.40]
    assert compose('crcd', R56_R20, short).model.objective.crcd.num_samples == 50_000


def test_teachers_follow_the_shortening_only():
    assert teacher_recipe('vgg13', Recipe('paper_35e', None, 8)).to_dict() == recipes.load('teachers/vgg13_cifar100').to_dict()
    short = teacher_recipe('vgg13', Recipe('paper_35e', 24, 8, True))
    assert short.train_cfg.max_epochs == 24 and milestones(short) == [[15, 18, 21]]
    assert short.optim_wrapper.type == 'mmcrrcd.BF16OptimWrapper' and short.model.data_preprocessor.get('resolution') is None


def test_a_composed_config_survives_its_file(tmp_path):
    cell = compose('sskd', R56_R20, Recipe(epochs=24, amp=True))
    cell.dump(tmp_path / 'config.py')
    assert Config.fromfile(tmp_path / 'config.py').to_dict() == cell.to_dict()


def test_what_makes_two_runs_the_same():
    text = compose('dkd', R56_R20, Recipe()).pretty_text
    other = compose('dkd', R56_R20, Recipe(), seed=6)
    other.model.teacher_checkpoint = 'elsewhere'
    reproduce.check_same(other, text, Path('x'))
    for different in (compose('dkd', R56_R20, Recipe(amp=True)), compose('dkd', R56_R20, Recipe(epochs=239)),
                      compose('dkd', ('resnet110', 'resnet32'), Recipe()), compose('kd', R56_R20, Recipe())):
        with pytest.raises(InputError, match='^x is of a run with other settings'):
            reproduce.check_same(different, text, Path('x'))


@pytest.mark.parametrize('cell, message', [
    ('foo/resnet56_resnet20', 'the table has the methods student, kd, fitnet, '),
    ('kd', 'kd has the pairs wrn40_2_wrn16_2, '),
    ('kd/resnet18_vgg8', 'kd has the pairs wrn40_2_wrn16_2, '),
    ('teacher/resnet56_resnet20', 'the table has the methods'),
])
def test_a_cell_that_is_not_in_the_table_ends_in_one_line(cell, message):
    with pytest.raises(SystemExit, match=message) as error:
        reproduce.main(['table1', '--cell', 'kd/vgg13_vgg8', cell])
    assert str(error.value).startswith(f'error: --cell {cell}: ') and '\n' not in str(error.value)


def test_cells_that_the_paper_leaves_out_can_be_wanted():
    wanted = ['sskd/resnet56_resnet20', 'dkd/resnet110_resnet20', 'kd/vgg13_vgg8']
    found = reproduce.chosen(PAPER_TABLES['table1'], wanted)
    assert {f'{method}/{"_".join(pair)}' for method, pair in found} == set(wanted)


def test_all_cells_of_the_paper_have_their_configs():
    for paper, number in zip(PAPER_TABLES.values(), (15 * 7 - 1, 15 * 5)):
        found = reproduce.chosen(paper, None)
        assert len(found) == number
        for method, pair in found:
            assert (recipes.CONFIGS / 'crrcd' / f'{"_".join(pair)}_cifar100.py').is_file()
            assert method in ('student', 'crrcd') or (recipes.CONFIGS / 'baselines' / f'{method}.py').is_file()


# ---- a small table of its own: generated images, ResNets of depth 8

TINY_NETWORKS = '''
resnet56 = dict(type=ImageClassifier, neck=pool, backbone=dict(type=ResNetCIFAR, depth=8, widths=(8, 16, 24, 32)),
                head=dict(type=LinearClsHead, num_classes=40, in_channels=32, init_cfg=None))
resnet20 = dict(type=ImageClassifier, neck=pool, backbone=dict(type=ResNetCIFAR, depth=8, widths=(8, 8, 16, 16)),
                head=dict(type=LinearClsHead, num_classes=40, in_channels=16, init_cfg=None))
vgg8 = shufflenetv1 = resnet20
wrn40_2 = resnet56
'''
TINY_DATA = '''
from mmcrrcd.datasets import GlyphArrays
train_dataloader.update(dataset=dict(type=GlyphArrays, split='train', num_images=64, seed=0))
val_dataloader.update(dataset=dict(type=GlyphArrays, split='test', num_images=50, seed=0))
'''
TINY_TABLE = PaperTable('Table T: two small networks', [R56_R20], {
    name: {'resnet56_resnet20': number}
    for name, number in dict(teacher=90.0, student=1.0, kd=99.0, fitnet=60.0, fsp=50.0, at=40.0, ab=30.0, crrcd=99.0).items()})
EPOCHS = 30


@pytest.fixture
def tiny_table(tmp_path, monkeypatch):
    configs = tmp_path / 'configs'
    shutil.copytree(ROOT / 'configs', configs)
    for name, text in (('networks', TINY_NETWORKS), ('datasets/cifar100', TINY_DATA)):
        file = configs / '_base_' / f'{name}.py'
        file.write_text(file.read_text() + text)
    monkeypatch.setattr(recipes, 'CONFIGS', configs)
    monkeypatch.setattr(reproduced, 'RESULTS', tmp_path / 'results')
    monkeypatch.setitem(PAPER_TABLES, 'tiny', TINY_TABLE)
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.setattr(sys, 'argv', ['reproduce.py', 'tiny'])
    monkeypatch.chdir(tmp_path)
    cells.teacher_run.cache_clear()
    cells.about_the_teacher.cache_clear()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)                             # weights agree to the bit with as many threads only
    yield tmp_path
    torch.set_num_threads(threads)


class Killed(BaseException):
    pass


@pytest.mark.slow
def test_a_table_from_teacher_to_picture(tiny_table, monkeypatch, capsys):
    command = ['tiny', '--cell', 'kd/resnet56_resnet20', 'fsp/resnet56_resnet20', '--seeds', '1', '--epochs', str(EPOCHS)]
    folder = Path('work_dirs/reproduce') / f'kd__resnet56_resnet20__cifar_240e_in_{EPOCHS}e' / 'seed5'

    def kill(duration):
        time.sleep(0.05)
        if runs.curve(folder):
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(runs, 'time', SimpleNamespace(sleep=kill))
        reproduce.main(command)
    assert Path(f'work_dirs/reproduce/teachers/resnet56_cifar100_in_{EPOCHS}e/epoch_{EPOCHS}.pth').is_file()
    reached = len(runs.curve(folder))
    assert 1 <= reached < EPOCHS
    time.sleep(0.5)
    assert len(runs.curve(folder)) <= reached + 1        # the run ended with the table's process

    cells.teacher_run.cache_clear()                  # a new process would not know that
    with pytest.raises(SystemExit) as error:             # networks of different channels
        reproduce.main([*command, '--jobs', '2'])
    assert error.value.code.splitlines()[0] == '1 failed:'
    assert error.value.code.splitlines()[1].startswith('fsp/resnet56_resnet20 seed 5: error: FSPLoss needs')
    assert 'resumed epoch: ' in (folder / 'output.txt').read_text()

    file, = (tiny_table / 'results' / 'tiny').glob('*.json')
    assert file.name == f'kd__resnet56_resnet20__cifar_240e_in_{EPOCHS}e.json'
    kd = json.loads(file.read_text())
    assert (kd['epochs'], kd['resolution'], kd['batch'], kd['lr'], kd['precision']) == (EPOCHS, 32, 64, 0.05, 'float32')
    seed = kd['seeds']['5']
    assert len(seed['curve']) == EPOCHS and None not in seed['curve']
    assert seed['last'] == seed['curve'][-1] and seed['best'] == max(seed['curve'])
    assert 0 < seed['seconds'] < 600 and seed['command'] == 'python reproduce.py tiny'
    assert {'hardware', 'versions', 'threads'} <= seed.keys()
    assert kd['teacher']['epochs'] == EPOCHS and len(kd['teacher']['sha256']) == 12 and 0 <= kd['teacher']['accuracy'] <= 100
    text = Config.fromstring(kd['config'], '.py')
    assert text.model.objective.kd.weight == 0.9 and text.train_cfg.max_epochs == EPOCHS

    with monkeypatch.context() as patch:                 # what is finished is not touched again
        patch.setattr(subprocess, 'Popen', None)
        cells.teacher_run.cache_clear()
        capsys.readouterr()
        reproduce.main([*command[:3], *command[4:]])     # without fsp
        assert 'cells: 1; runs to go: 0,' in capsys.readouterr().out
        reproduce.main(['tiny', '--epochs', str(EPOCHS), '--render'])
    for suffix in ('md', 'html', 'png'):
        assert (tiny_table / 'results' / f'tiny__cifar_240e_in_{EPOCHS}e.{suffix}').stat().st_size > 500
    page = (tiny_table / 'results' / f'tiny__cifar_240e_in_{EPOCHS}e.md').read_text()
    assert f'| KD | {seed["last"]:.2f} (n = 1)<br>paper 99.00: ' in page
    assert '| FSP | not run<br>paper 50.00 |' in page and '| AT | not run<br>paper 40.00 |' in page

    # Other settings under the same name are not mixed in.
    with pytest.raises(SystemExit, match='kd__.*json is of a run with other settings: move it away'):
        reproduce.main([*command, '--amp'])
    changed = Path(f'work_dirs/reproduce/teachers/resnet56_cifar100_in_{EPOCHS}e/epoch_{EPOCHS}.pth')
    weights = torch.load(changed, weights_only=False)
    weights['state_dict']['student.head.fc.bias'] += 1
    torch.save(weights, changed)
    cells.about_the_teacher.cache_clear()
    with pytest.raises(SystemExit, match='kd__.*json is of another teacher than that of'):
        reproduce.main(['tiny', '--cell', 'kd/resnet56_resnet20', '--seeds', '2', '--epochs', str(EPOCHS)])


IN_STEP = ['tiny', '--in-step', '--seeds', '1', '--epochs', '4', '--cell']


def weights_of(method: str, pair: str = 'resnet56_resnet20') -> dict:
    folder = Path('work_dirs/reproduce') / f'{method}__{pair}__cifar_240e_in_4e' / 'seed5'
    return safe_load(find_checkpoint(folder))['state_dict']


def start_anew() -> None:
    """Forgets all results and all that was trained but the teacher."""
    shutil.rmtree('results')
    for folder in Path('work_dirs/reproduce').iterdir():
        if folder.is_dir() and folder.name != 'teachers':
            shutil.rmtree(folder)


def kill_in_step(command: list[str], epoch: int, monkeypatch) -> None:
    """Begins a training in step that is killed after ``epoch``."""
    write = in_step.write

    def killed(state, file):
        write(state, file)
        if state.get('epoch') == epoch:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(in_step, 'write', killed)
        reproduce.main(command)


def test_in_step_a_student_learns_what_it_learns_by_itself(tiny_table):
    wanted = ['student/resnet56_resnet20', 'fitnet/resnet56_resnet20', 'kd/resnet56_resnet20', 'ab/resnet56_resnet20']
    reproduce.main([*IN_STEP, *wanted])
    file, = (tiny_table / 'results' / 'tiny').glob('kd__*.json')
    kd = json.loads(file.read_text())
    assert kd['seeds']['5']['in_step'] == ['student/resnet20 seed 5', 'kd/resnet56_resnet20 seed 5',
                                           'fitnet/resnet56_resnet20 seed 5', 'ab/resnet56_resnet20 seed 5']
    assert len(kd['seeds']['5']['curve']) == 4 and kd['seeds']['5']['seconds'] > 0
    assert not list(Path('work_dirs/reproduce/in_step').rglob('*.pth'))
    together = {'fitnet': weights_of('fitnet'), 'student': weights_of('student', 'resnet20')}
    assert len(safe_load(find_checkpoint(Path('work_dirs/reproduce/fitnet__resnet56_resnet20__cifar_240e_in_4e/seed5')))
               ['meta']['dataset_meta']['classes']) == 40
    folder = Path('work_dirs/reproduce/fitnet__resnet56_resnet20__cifar_240e_in_4e/seed5')
    kept = [json.loads(line) for line in (folder / 'evaluated.json').read_text().splitlines()]

    start_anew()
    reproduce.main([option for option in [*IN_STEP, *wanted[:2]] if option != '--in-step'])
    log, = folder.glob('*/vis_data/scalars.json')
    alone = [row for row in map(json.loads, log.read_text().splitlines()) if 'loss' in row]
    assert len(kept) == len(alone) == 4
    for row, other in zip(kept, alone):
        for name in ('loss', 'loss_cls', 'loss_fitnet', 'accuracy'):
            assert row[name] == pytest.approx(other[name], rel=1e-6)
    for name, pair in (('fitnet', 'resnet56_resnet20'), ('student', 'resnet20')):
        weights = weights_of(name, pair)
        assert weights.keys() == together[name].keys()
        assert all(torch.equal(weights[key], together[name][key]) for key in weights)


@pytest.mark.skipif(torch.cuda.is_available(), reason='compares with one after the other, which is for CPUs')
@pytest.mark.parametrize('teacher_is_captured', [True, False])
def test_in_step_side_by_side_as_one_after_the_other(tiny_table, monkeypatch, teacher_is_captured):
    """What is done on a GPU, with steps that are no graphs."""
    launched = []

    class Step:
        draws = False

        def __init__(self, step):
            self.step, self.ready = step, teacher_is_captured
            self.name = 'teacher' if step.__name__ == 'ask' else f'{step.__name__} {step.__self__.run.name}'

        def restart(self):
            launched.append('epoch')

        def launch(self, batch, steady):
            launched.append((self.name, steady))
            return self.step(batch)

        def join(self):
            launched.append(f'join {self.name}')

    cells = ['crrcd/resnet56_resnet20', 'ab/resnet56_resnet20', 'student/resnet56_resnet20', 'sskd/resnet56_resnet20']
    reproduce.main([*IN_STEP, *cells])
    names = dict(crrcd=('crrcd',), ab=('ab',), student=('student', 'resnet20'), sskd=('sskd',))
    wanted = {name: weights_of(*which) for name, which in names.items()}
    start_anew()
    monkeypatch.setattr(in_step, 'GraphedStep', Step)
    monkeypatch.setattr(in_step, 'OneByOne', in_step.SideBySide)
    reproduce.main([*IN_STEP, *cells])
    for name, which in names.items():
        assert all(torch.equal(value, wanted[name][key]) for key, value in weights_of(*which).items())
    steps = [one for one in launched if isinstance(one, tuple) and one[0].startswith('step')]
    assert any(steady for _, steady in steps) == teacher_is_captured
    first = launched[launched.index(('teacher', True)):][:8]
    assert first[1] == 'join teacher' and [one[0] for one in first[2:6]] == [
        f'step {run}' for run in ('student/resnet20 seed 5', 'ab/resnet56_resnet20 seed 5', 'crrcd/resnet56_resnet20 seed 5',
                                  'sskd/resnet56_resnet20 seed 5')]


def test_in_step_students_that_draw_numbers_are_launched_first_and_one_by_one():
    events = []

    class Step:
        def __init__(self, name, draws):
            self.name, self.draws = name, draws

        def launch(self, batch, steady):
            events.append(self.name)
            return f'of {self.name}'

        def join(self):
            events.append(f'join {self.name}')

    steps = [Step('kd', False), Step('crd', True), Step('at', False), Step('crcd', True)]
    assert in_step.all_at_once(steps, {}, True) == ['of kd', 'of crd', 'of at', 'of crcd']
    assert events[:6] == ['crd', 'join crd', 'crcd', 'join crcd', 'kd', 'at']
    assert {'join kd', 'join at'} <= set(events[6:])


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_in_step_by_graphs_as_kernel_by_kernel(tiny_table, monkeypatch):
    command = [*IN_STEP, *(f'{method}/resnet56_resnet20' for method in ('crrcd', 'kd', 'ab'))]

    def losses() -> dict[str, list[float]]:
        return {name: [json.loads(line)['loss'] for line in
                       Path(f'work_dirs/reproduce/{name}__resnet56_resnet20__cifar_240e_in_4e/seed5/evaluated.json')
                       .read_text().splitlines()] for name in ('crrcd', 'kd', 'ab')}

    reproduce.main(command)
    by_graphs = losses()
    start_anew()
    monkeypatch.setattr(in_step, 'SideBySide', in_step.OneByOne)
    reproduce.main(command)
    for name, values in losses().items():
        assert values == pytest.approx(by_graphs[name], rel=2e-2)


def test_in_step_an_interrupted_training_goes_on_to_the_same_weights(tiny_table, monkeypatch):
    command = [*IN_STEP, 'crrcd/resnet56_resnet20', 'ab/resnet56_resnet20']
    reproduce.main(command)                              # of AB, a stage of its own comes first
    whole = {method: weights_of(method) for method in ('crrcd', 'ab')}
    start_anew()
    kill_in_step(command, 2, monkeypatch)
    state, = Path('work_dirs/reproduce/in_step').rglob('*.pth')
    with pytest.raises(SystemExit, match=f'{state.name} is of a training without kd/resnet56_resnet20 seed 5'):
        reproduce.main([*command, 'kd/resnet56_resnet20'])
    with pytest.raises(SystemExit, match=f'{state.name} is of a training with ab/resnet56_resnet20 seed 5'):
        reproduce.main(command[:-1])                     # whose state would be lost
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match='is of a training of .* with other settings'):
        patch.setattr(Config, 'pretty_text', 'another config')
        reproduce.main(command)
    with in_step.locked(state):
        reproduce.main(command)                          # which leaves it alone
    reproduce.main(command)
    for method in whole:
        weights = weights_of(method)
        assert all(torch.equal(weights[key], whole[method][key]) for key in whole[method])
    assert not state.exists()
    folder = Path('work_dirs/reproduce/crrcd__resnet56_resnet20__cifar_240e_in_4e/seed5')
    assert len((folder / 'about.jsonl').read_text().splitlines()) == 2                 # processes
    rows = (folder / 'evaluated.json').read_text().splitlines()
    assert [json.loads(row)['step'] for row in rows] == [1, 2, 3, 4] and all('loss_rcd' in row for row in rows)


def test_in_step_a_second_process_takes_the_next_seed(tiny_table, monkeypatch, capsys):
    command = [*IN_STEP, 'kd/resnet56_resnet20', 'student/resnet56_resnet20', '--seeds', '2']
    kill_in_step(command, 1, monkeypatch)
    first, = Path('work_dirs/reproduce/in_step').rglob('*.pth')
    with in_step.locked(first):
        reproduce.main(command)
    assert f'{first} is being trained by another process: left to it' in capsys.readouterr().out
    result, = Path('results').rglob('kd__*.json')
    assert list(json.loads(result.read_text())['seeds']) == ['6']
    reproduce.main(command)                              # and the first goes on where it was
    assert list(json.loads(result.read_text())['seeds']) == ['6', '5']


def test_in_step_what_another_process_has_trained_meanwhile_is_left(tiny_table, monkeypatch):
    """Of two seeds the second is trained by another process while this one trains the first."""
    command = [*IN_STEP, 'kd/resnet56_resnet20', 'student/resnet56_resnet20', '--seeds', '2']
    train, trained = in_step.train_in_step, []

    def train_and_let_another_train(runs, file, console):
        train(runs, file, console)
        trained.append(sorted(run.name for run in runs))
        if len(trained) == 1:
            reproduce.main(command)

    monkeypatch.setattr(in_step, 'train_in_step', train_and_let_another_train)
    reproduce.main(command)
    assert trained == [[f'{name} seed {seed}' for name in ('kd/resnet56_resnet20', 'student/resnet20')] for seed in (5, 6)]
    result, = Path('results').rglob('kd__*.json')
    assert list(json.loads(result.read_text())['seeds']) == ['5', '6']


def test_in_step_a_constant_critic_is_reported(tiny_table, monkeypatch, capsys):
    monkeypatch.setattr(in_step, 'warning_of', lambda positive, negative: critic_watch.warning_of(positive, negative, gap=10))
    reproduce.main([*IN_STEP, 'crrcd/resnet56_resnet20', 'kd/resnet56_resnet20'])
    said = [line for line in capsys.readouterr().out.splitlines() if 'the critic is a constant' in line]
    assert len(said) == 3                                # not after the first epoch: the queue has to fill
    assert all(line.startswith('crrcd/resnet56_resnet20 seed 5: ') for line in said)


def test_in_step_a_lost_or_refused_run_ends_no_others(tiny_table, monkeypatch):
    file = recipes.CONFIGS / 'baselines' / 'at.py'
    file.write_text(file.read_text() + '\nmodel["objective"]["at"]["weight"] = 1e38\n')
    command = [*IN_STEP, *(f'{method}/resnet56_resnet20' for method in ('at', 'fsp', 'kd'))]
    kill_in_step(command, 3, monkeypatch)
    with pytest.raises(SystemExit) as error:             # what has failed stays so, the others go on
        reproduce.main(command)
    how_many, at, fsp = sorted(error.value.code.splitlines())
    assert how_many == '2 failed:' and at.startswith('at/resnet56_resnet20 seed 5: loss or weights are not finite after')
    assert fsp.startswith('fsp/resnet56_resnet20 seed 5: FSPLoss needs a teacher and a student with maps of the same')
    file, = (tiny_table / 'results' / 'tiny').glob('*.json')
    assert file.name.startswith('kd__')


def test_what_cannot_go_in_step(tiny_table):
    cfg = compose('kd', R56_R20, Recipe())
    run = runs.Run('kd', Path('kd'), cfg)
    run.folder.mkdir()
    (run.folder / 'last_checkpoint').write_text('epoch_3.pth')
    with pytest.raises(InputError, match='kd has been begun by itself'):
        in_step.groups([run])
    with pytest.raises(SystemExit, match='--in-step is not for faces, and without --slurm'):
        reproduce.main(['tiny', '--in-step', '--slurm', 'gpus'])


def test_in_step_go_those_of_one_teacher_and_seed():
    def grouped(*runs_wanted) -> list[list[str]]:
        """Of (method, pair, seed)."""
        named = [runs.Run(f'{method}/{"_".join(pair)}/{seed}', Path(method), compose(method, pair, Recipe(), seed=seed))
                 for method, pair, seed in runs_wanted]
        return [[run.name for run in group] for group in in_step.groups(named).values()]

    other = 'resnet110', 'resnet20'
    assert grouped(('student', R56_R20, 5), ('kd', R56_R20, 6)) == [['student/resnet56_resnet20/5'], ['kd/resnet56_resnet20/6']]
    assert grouped(('student', R56_R20, 5), ('kd', R56_R20, 5), ('kd', other, 5), ('at', other, 5)) == [
        ['student/resnet56_resnet20/5', 'kd/resnet110_resnet20/5', 'at/resnet110_resnet20/5'], ['kd/resnet56_resnet20/5']]
    assert grouped(('student', R56_R20, 5)) == [['student/resnet56_resnet20/5']]


def test_configs_of_small_images():
    crrcd = recipes.low('crrcd', ('resnet56', 'vgg8'), Recipe('paper_35e', None, 8), 'svhn')
    written = recipes.load('low_resolution/resnet56_vgg8_svhn_8px')
    written.model.data_preprocessor.restore = False      # which is the default
    assert crrcd.to_dict() == written.to_dict() | dict(randomness=dict(seed=recipes.FIRST_SEED))
    kd = recipes.low('kd', ('resnet56', 'vgg8'), Recipe('paper_35e', None, 8), 'svhn')
    assert kd.model == crrcd.model | dict(beta=0)
    alone = recipes.low('student', ('resnet18', 'vgg8_restored'), Recipe('paper_35e', 5, 16, True), 'tinyimagenet')
    assert alone.model.keys() == {'type', 'student', 'data_preprocessor', 'input_size'} and 'teacher_config' not in alone
    assert alone.model.data_preprocessor.restore is True and alone.model.data_preprocessor.resolution == 16
    assert (alone.train_cfg.max_epochs, alone.optim_wrapper.type) == (5, 'mmcrrcd.BF16OptimWrapper')


@pytest.mark.parametrize('name, teacher', [(name, teacher) for name, table in low_resolution.LOW_TABLES.items()
                                           for teacher in table.teachers])
def test_a_table_of_small_images_trains_the_teacher_of_its_configs(name, teacher):
    table = low_resolution.LOW_TABLES[name]
    student = recipes.low('crrcd', (teacher, 'vgg8'), Recipe('paper_35e', None, 8), table.data)
    own = teacher_recipe(teacher, Recipe(), table.data)
    assert student.teacher_config == f'configs/teachers/{teacher}_{table.data}.py'
    assert student.model.teacher_checkpoint == f'work_dirs/{teacher}_{table.data}'
    assert student.model.teacher == own.model.student
    assert own.model.student.head.num_classes == dict(svhn=10, cifar100=100, tinyimagenet=200)[table.data]
    assert student.model.get('input_size', 32) == own.model.get('input_size', 32) == table.side


class Seen(torch.nn.Module):
    """A network of one class that keeps the images it is shown."""

    def __init__(self):
        super().__init__()
        self.images = []

    def stream(self, images):
        self.images.append(images)
        mean = images.mean((1, 2, 3))[:, None]
        return Stream((), mean, mean)


@pytest.mark.parametrize('scale_to', [None, 32])
def test_images_are_reduced_in_five_ways(scale_to, monkeypatch):
    images = np.random.default_rng(0).integers(256, size=(4, 32, 32, 3), dtype=np.uint8)
    data = ImageArrays(images, np.zeros(4, int), ['all'], 'four images')
    monkeypatch.setattr(low_resolution, 'own_images', lambda config: data)
    seen = Seen()
    network = Classifier(seen, dict(mean=(0., 0., 0.), std=(1., 1., 1.)), 32, dict(resolution=16, restore=True))
    found = low_resolution.over_reductions(network, 'config.py', 8, scale_to)
    assert list(found) == ['bilinear, antialiased', 'bicubic, antialiased', 'area', 'bilinear', 'nearest']
    assert set(found.values()) == {100.0}
    full = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    wanted = [F.interpolate(full, 8, mode='bilinear', antialias=True), F.interpolate(full, 8, mode='bicubic', antialias=True),
              F.avg_pool2d(full, 4), F.interpolate(full, 8, mode='bilinear'), full[:, :, 2::4, 2::4]]
    for shown, small in zip(seen.images, wanted, strict=True):
        small = small.round().clamp(0, 255)
        if scale_to:
            small = F.interpolate(small, 32, mode='bilinear', antialias=True).round()
        assert torch.equal(shown, small)


@pytest.mark.slow
def test_small_images_are_tested_in_all_ways(tiny_table, monkeypatch, capsys):
    command = ['cifar100', '--in-step', '--seeds', '1', '--epochs', '2', '--cell']
    reproduce.main([*command, 'student/vgg8_vgg8', 'crrcd/vgg8_vgg8', 'student/vgg8_vgg8_restored'])
    folder = tiny_table / 'results' / 'cifar100'
    label = '8px__paper_35e_in_2e'
    alone, restored, crrcd = (json.loads((folder / f'{name}__{label}.json').read_text()) for name in (
        'student__vgg8', 'student__vgg8_restored', 'crrcd__vgg8_vgg8'))
    for record in (alone, restored, crrcd):
        seed = record['seeds']['5']
        assert seed['reductions'].keys() == low_resolution.REDUCTIONS.keys()
        assert seed['reductions']['bilinear, antialiased'] == pytest.approx(seed['last'])
        assert seed['images'] == dict(train=64, test=50)
    weights = 'work_dirs/reproduce/cifar100/student__vgg8_restored__8px__paper_35e_in_2e/seed5'
    network = load_classifier(f'{weights}/config.py', weights)
    images = own_images(f'{weights}/config.py')
    by_hand = network.at(8, 32, interpolation='nearest', restore=False)
    right = by_hand(torch.from_numpy(np.ascontiguousarray(images.images)).permute(0, 3, 1, 2)).logits.argmax(1) == images.labels
    assert restored['seeds']['5']['reductions']['nearest'] == pytest.approx(100 * right.float().mean().item())
    assert alone['teacher'] is None and crrcd['teacher']['reductions'].keys() == low_resolution.REDUCTIONS.keys()
    page = (tiny_table / 'results' / f'cifar100__{label}.md').read_text()
    assert '64 training images, 50 test images.' in page
    assert crrcd['teacher']['full'] == pytest.approx(crrcd['teacher']['accuracy'])
    assert f'On all 32 pixels the teacher has: {crrcd["teacher"]["full"]:.2f} (n = 1).' in page
    area = [f'{found["reductions"]["area"]:.2f} (n = 1)' for found in (
        crrcd['teacher'], alone['seeds']['5'], restored['seeds']['5'], crrcd['seeds']['5'])]
    rows = [[cell.strip() for cell in line.split('|')] for line in page.splitlines() if line.startswith('| ')]
    assert [(row[1], row[4]) for row in rows[1:]] == [
        ('teacher, on small images scaled up', area[0]), ('student alone', area[1]), ('student alone, scaled up', area[2]),
        ('KD (1 CE + 0.5 KD)', 'not run'), ('KD (1 CE + 0.5 KD), scaled up', 'not run'), ('CRRCD †', area[3]),
        ('CRRCD †, scaled up', 'not run')]
    work = {row[1]: row[7] for row in rows[1:]}
    assert float(work['student alone, scaled up']) > 10 * float(work['student alone']) > 0
    assert work['student alone'] == work['CRRCD †'] and work['KD (1 CE + 0.5 KD)'] == '–'
    assert float(work['teacher, on small images scaled up']) > 0

    def never(*args):
        raise AssertionError('the teacher is tested again')

    monkeypatch.setattr(low_resolution, 'of_the_teacher', never)         # another cell has done it
    reproduce.main([*command, 'kd/vgg8_vgg8'])
    kd = json.loads((folder / f'kd__vgg8_vgg8__{label}.json').read_text())
    assert kd['teacher'] == crrcd['teacher']


def test_multiply_adds_are_those_of_the_networks():
    text = compose('crrcd', ('vgg8', 'vgg8'), Recipe()).pretty_text
    assert low_resolution.multiply_adds(text, 'student', 32) == '96.2'   # as published
    assert low_resolution.multiply_adds(text, 'teacher', 8) == '6.1'


@DATASETS.register_module()
class ProbedImages(ImageArrays):
    """Stands in for STL-10."""

    def __init__(self, data_root: str, split: str):
        rng = np.random.default_rng(0 if split == 'train' else 1)
        labels = np.arange(40 if split == 'train' else 30) % 2
        images = (rng.integers(0, 250, (len(labels), 32, 32, 3)) + 2 * labels[:, None, None, None]).astype(np.uint8)
        super().__init__(images, labels, ['dark', 'bright'], data_root)


@pytest.mark.slow
def test_features_of_table_4(tiny_table, monkeypatch, capsys):
    with pytest.raises(SystemExit, match='stl10'):       # before any training
        monkeypatch.setattr('mmcrrcd.datasets.stl10.fetch', lambda *args: (_ for _ in ()).throw(InputError('no stl10')))
        reproduce.main(['table4_stl10', '--epochs', '2'])
    assert not Path('work_dirs').exists()
    monkeypatch.setitem(embeddings.NAMED, 'stl10', 'ProbedImages')
    command = ['table4_stl10', '--in-step', '--seeds', '1', '--epochs', '2', '--cell']
    reproduce.main([*command, 'student/wrn40_2_shufflenetv1', 'at/wrn40_2_shufflenetv1'])
    label = 'cifar_240e_in_2e'
    folder = tiny_table / 'results' / 'table4_stl10'
    student, at = (json.loads((folder / f'{name}__{label}.json').read_text())
                   for name in ('student__shufflenetv1', 'at__wrn40_2_shufflenetv1'))
    weights = f'work_dirs/reproduce/at__wrn40_2_shufflenetv1__{label}/seed5'
    for probed, teacher in ((at['seeds']['5']['probe'], False), (at['teacher']['probe'], True)):
        network = load_classifier(f'{weights}/config.py', '' if teacher else weights, teacher)
        assert probed == json.loads(json.dumps(linear_probe_tool.probe(network, 'stl10', None, 3)))
    assert len(at['seeds']['5']['probe']['last_epoch']) == 3 and at['seeds']['5']['probe']['images'] == dict(train=40, test=30)
    page = (tiny_table / 'results' / f'table4_stl10__{label}.md').read_text()
    rows = {line.split('|')[1].strip(): line.split('|')[2].strip() for line in page.splitlines() if line.startswith('| ')}
    probe = at['seeds']['5']['probe']['mean']
    assert rows['AT'] == f'{probe:.2f} (n = 1)<br>paper 73.47: {probe - 73.47:+.2f}'
    assert rows['teacher'].startswith(f'{at["teacher"]["probe"]["mean"]:.2f} (n = 1)<br>paper 71.01')
    assert rows['student alone'].startswith(f'{student["seeds"]["5"]["probe"]["mean"]:.2f} (n = 1)')
    assert rows['CRRCD †'] == 'not run<br>paper 75.15' and 'stl10: 40 training images, 30 test images.' in page

    # The other table takes the trained networks, and refuses them where the teacher is another.
    monkeypatch.setitem(embeddings.NAMED, 'tinyimagenet', 'ProbedImages')
    other = ['table4_tinyimagenet', *command[1:], 'at/wrn40_2_shufflenetv1']
    cells.teacher_run.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(in_step, 'train_in_step', None)
        patch.setattr(subprocess, 'Popen', None)
        reproduce.main(other)
    found = json.loads((tiny_table / 'results' / 'table4_tinyimagenet' / f'at__wrn40_2_shufflenetv1__{label}.json').read_text())
    assert found['seeds']['5']['last'] == at['seeds']['5']['last'] and found['teacher']['sha256'] == at['teacher']['sha256']
    (tiny_table / 'results' / 'table4_tinyimagenet' / f'at__wrn40_2_shufflenetv1__{label}.json').unlink()
    file = find_checkpoint(at['teacher']['checkpoint'])
    changed = torch.load(file, weights_only=False)
    changed['state_dict']['student.head.fc.bias'] += 1
    torch.save(changed, file)
    cells.teacher_run.cache_clear()
    cells.about_the_teacher.cache_clear()
    with pytest.raises(SystemExit, match='is of another teacher than that of'):
        reproduce.main(other)


def test_cells_of_another_precision_are_named():
    def notes(*precisions: str) -> str:
        return reproduced.training_notes([dict(method=method, pair='a_b', batch=64, lr=0.05, precision=precision, seeds={},
                                               teacher=None) for method, precision in zip(('kd', 'at'), precisions)])[0]

    assert notes('bfloat16', 'bfloat16') == 'Training: batch 64, learning rate 0.05, bfloat16.'
    assert notes('bfloat16', 'float32').endswith('0.05, float32; in bfloat16: kd/a_b.')


def test_what_table_4_compares_with(tmp_path, monkeypatch):
    def page(label: str, train: int, **settings) -> str:
        probe = dict(mean=36.0, images=dict(train=train, test=10_000))
        seed = dict(last=71.0, probe=probe, seconds=60.0, hardware='a CPU', versions={}, threads=1, command='x') | settings
        record = dict(method='at', pair='wrn40_2_shufflenetv1', batch=64, lr=0.01, precision='float32', seeds={'5': seed},
                      teacher=dict(checkpoint='t', epochs=240, sha256='0', accuracy=75.0, probe=probe))
        return transfer.TransferResults('table4_tinyimagenet', label, [record]).markdown()

    full = page('cifar_240e', 100_000)
    assert '| AT | 36.00 (n = 1)<br>paper 33.75: ▲ +2.25 | 71.00 (n = 1) |' in full and '▲ better than' in full
    for other in (page('cifar_240e', 10_000), page('cifar_240e_in_2e', 100_000)):
        assert 'paper 33.75: +2.25' in other and 'not comparable' in other and '▲' not in other
    assert 'paper 33.75' not in page('8px__cifar_240e', 100_000)


def test_table_4_has_the_published_rates_of_sskd():
    """0.05 for the teacher's head, 0.01 for the student, each from its beginning."""
    cfg = compose('sskd', transfer.PAIR, Recipe())
    parameter = torch.nn.Parameter(torch.zeros(1))
    wrapper = OptimWrapper(torch.optim.SGD([parameter], lr=cfg.optim_wrapper.optimizer.lr))
    schedulers = [PARAM_SCHEDULERS.build(dict(scheduler, optimizer=wrapper)) for scheduler in cfg.param_scheduler]
    rates = []
    for _ in range(cfg.train_cfg.max_epochs):
        rates.append(wrapper.get_lr()['lr'][0])
        for scheduler in schedulers:
            scheduler.step()
    assert [rates[epoch] for epoch in (0, 29, 30, 45, 60, 209, 210)] == pytest.approx([.05, .05, .005, .0005, .01, .01, .001])
    paper = compose('sskd', transfer.PAIR, Recipe('paper_35e'))
    assert len(paper.param_scheduler) == 2 and paper.optim_wrapper.optimizer.lr == 0.05
    assert len(compose('sskd', R56_R20, Recipe()).param_scheduler) == 2


def test_a_test_that_fails_ends_no_other_run():
    run = runs.Run('a', Path('a'), compose('kd', R56_R20, Recipe()))
    run.then = lambda: (_ for _ in ()).throw(InputError('no data'))
    assert run.conclude() == 'failed: no data' and run.failure == 'no data' and not run.finished


def test_a_student_alone_is_trained_once_for_all_its_teachers(tiny_table):
    pairs = [pair for method, pair in reproduce.chosen(PAPER_TABLES['table1'], None) if method == 'student']
    alone = [cells.Cell('table1', 'student', pair, Recipe(), [5, 6]) for pair in pairs if pair[1] == 'resnet20']
    assert [cell.file.name for cell in alone] == ['student__resnet20__cifar_240e.json'] * 2
    assert [run.folder for run in alone[0].runs.values()] == [run.folder for run in alone[1].runs.values()]
    assert [run.cfg.randomness.seed for run in alone[0].runs.values()] == [5, 6]
    assert all(run.needs is None for run in alone[0].runs.values())


def start(folder: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, str(ROOT / 'tools' / 'runs.py'), str(folder)], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_a_run_ends_with_its_starter_and_tests_what_it_had_not(tiny_table):
    folder = tiny_table / 'run'
    folder.mkdir()
    cfg = compose('student', R56_R20, Recipe(epochs=100_000))
    cfg.dump(folder / 'config.py')
    first = start(folder)
    while len(runs.curve(folder)) < 2 and first.poll() is None:
        time.sleep(0.05)
    first.send_signal(signal.SIGSTOP)
    second = start(folder)
    assert second.wait(120) == 1 and 'run is being trained by another process' in second.stdout.read()
    first.send_signal(signal.SIGCONT)
    first.stdin.close()                                  # as it is when the starter was killed
    assert first.wait(30) == 1

    # As if it had been stopped after the last checkpoint, before its test.
    reached = safe_load(find_checkpoint(folder))['meta']['epoch']
    expected = runs.curve(folder)
    for file in folder.glob('*/vis_data/scalars.json'):
        lines = file.read_text().splitlines()
        file.write_text('\n'.join(line for line in lines if json.loads(line).get('step') != reached) + '\n')
    assert reached not in runs.curve(folder)
    cfg.train_cfg.max_epochs = reached
    cfg.dump(folder / 'config.py')
    assert start(folder).wait(120) == 0
    caught_up = runs.curve(folder)
    assert max(caught_up) == reached and caught_up[reached] == expected.get(reached, caught_up[reached])


def test_wall_time_is_added_up_over_interruptions(tmp_path):
    for name, end in (('20260101_235950', '2026/01/02 00:00:20'), ('20260102_120000', '2026/01/02 12:00:07')):
        log = tmp_path / name / f'{name}.log'
        log.parent.mkdir()
        log.write_text(f'2026/01/01 23:59:59 - mmengine - INFO - first\n{end} - mmengine - INFO - last\nmore of it\n')
    assert runs.seconds(tmp_path) == 30 + 7


def test_runs_are_spread_over_gpus_or_sent_to_slurm(monkeypatch):
    run = runs.Run('kd/a_b seed 5', Path('x'), Config(dict(train_cfg=dict(max_epochs=1))))
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4,6')
    assert [runs.launcher(run, slot, 3, None)[1]['CUDA_VISIBLE_DEVICES'] for slot in range(3)] == ['4', '6', '4']
    monkeypatch.setenv('SRUN_ARGS', '--time=10 --exclusive')
    command, _ = runs.launcher(run, 0, 1, 'part')
    assert command[0] == 'srun'
    assert {'--partition=part', '--job-name=kd/a_b-seed-5', '--gres=gpu:1', '--ntasks=1'} <= set(command)
    assert command[-2:] == ['--time=10', '--exclusive']


# ---- the table

def record(method: str, accuracies: list[float], **settings) -> dict:
    about = dict(hardware='a GPU', threads=1, versions=dict(torch='2'), command='python tools/reproduce.py table1')
    seeds = {str(5 + i): dict(last=accuracy, best=accuracy + 1, **about) for i, accuracy in enumerate(accuracies)}
    return dict(method=method, pair='resnet56_resnet20', batch=64, lr=0.05, precision='float32', seeds=seeds,
                teacher=dict(checkpoint='work_dirs/resnet56_cifar100', epochs=240, sha256='abc', accuracy=72.0)) | settings


def cells_of(page: str, name: str) -> list[str]:
    line, = [line for line in page.splitlines() if line.startswith(f'| {name} |')]
    return [cell.strip() for cell in line.split('|')[2:-1]]


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduced, 'RESULTS', tmp_path)
    (tmp_path / 'table1').mkdir()

    def write(label, *records):
        for each in records:
            (tmp_path / 'table1' / f'{each["method"]}__{each["pair"]}__{label}.json').write_text(json.dumps(each))
        return reproduced.variant('table1', label)

    return write


def test_better_and_worse_are_marked_alike(results):
    table = results('cifar_240e', record('kd', [70.0, 71.0, 69.0]), record('crrcd', [72.5]), record('dkd', [70.969]),
                    record('student', [69.06], pair='resnet20', teacher=None))
    page = table.markdown()
    column = table.paper.pairs.index(R56_R20)
    assert cells_of(page, 'KD')[column] == '70.00 ± 1.00 (n = 3)<br>paper 70.66: ▼ -0.66'
    assert cells_of(page, 'CRRCD †')[column] == '72.50 (n = 1)<br>paper 72.10: ▲ +0.40'
    assert cells_of(page, 'DKD')[column] == '71.97 (n = 1)<br>paper 71.97: +0.00'            # the best epoch, as published
    assert cells_of(page, 'teacher')[column] == '72.00 (n = 1)<br>paper 72.34: ▼ -0.34'
    assert cells_of(page, 'student alone')[column] == cells_of(page, 'student alone')[column + 1] != 'not run'
    assert cells_of(page, 'AT')[column] == 'not run<br>paper 70.55'
    assert cells_of(page, 'DKD')[3] == '–' and '| SSKD |' not in page
    more = results('cifar_240e', record('sskd', [70.5])).markdown()
    assert cells_of(more, 'SSKD') == ['–', '–', '70.50 (n = 1)', '–', '–', '–', '–']     # without a number of the paper
    page = table.html()
    assert page.count('class="better"') == 1 and page.count('class="worse"') == 2
    assert 'a GPU' in page and '▲ better' in page and '† Not as published: WCoRD' in page


def test_at_another_resolution_the_papers_numbers_are_left_out(results):
    results('cifar_240e', record('kd', [70.0]))
    table = results('8px__cifar_240e', record('kd', [40.0]))
    assert cells_of(table.markdown(), 'KD')[2] == '40.00 (n = 1)'
    assert cells_of(table.markdown(), 'AT') == ['not run'] * 7
    assert 'the student sees 8 pixels, schedule cifar_240e' in table.title() and 'left out' in table.markdown()
    assert reproduced.markdown('table1').count('###') == 2
    assert reproduced.markdown('table2') == 'No runs yet.'


def test_a_shortened_schedule_is_not_comparable(results):
    table = results('cifar_240e_in_30e', record('kd', [60.0]))
    assert cells_of(table.markdown(), 'KD')[2] == '60.00 (n = 1)<br>paper 70.66: -10.66'
    assert 'schedule cifar_240e, shortened to 30 epochs' in table.title() and 'not comparable' in table.markdown()
    assert 'class="worse"' not in table.html()
    for suffix, file in zip(('md', 'html', 'png'), table.write()):
        assert file.suffix == f'.{suffix}' and file.stat().st_size > 1000


# ---- Figure 3

ABLATIONS = Config.fromfile(ROOT / 'configs' / 'ablations' / 'crrcd.py').to_dict()['ablations']


def test_the_sweeps_are_all_the_ablations():
    assert set(figure3.names(None)) == set(ABLATIONS)
    assert figure3.names(['sampling', 'dim']) == ['default', 'unsupervised', 'dim_64', 'dim_256']


@pytest.mark.parametrize('sweep, setting', dict(negatives='num_negatives', tau='tau', dim='dim',
                                                        anchors='num_anchors', beta='beta', alpha='alpha').items())
def test_a_value_is_that_of_the_setting(sweep, setting):
    default = inspect.signature(CRRCD).parameters[setting].default
    for value, name in figure3.SWEEPS[sweep].names.items():
        settings = ABLATIONS[name]
        assert set(settings) <= {setting}
        assert str(value) == str(settings.get(setting, default)).replace('None', 'all')


def test_a_point_is_the_pairs_config_with_one_change():
    recipe = Recipe('paper_35e', resolution=8)
    plain, changed = compose('crrcd', R56_R20, recipe), recipes.ablated('tau_0.02', R56_R20, recipe)
    assert changed.model.pop('tau') == 0.02 and changed.to_dict() == plain.to_dict()
    assert recipes.ablated('default', R56_R20, recipe).to_dict() == plain.to_dict()


@pytest.mark.parametrize('command, message', [
    (['fig3', '--cell', 'kd/vgg13_vgg8'], '--cell is for tables, --sweep and --pair for fig3'),
    (['table1', '--sweep', 'tau'], '--cell is for tables, --sweep and --pair for fig3'),
    (['table3', '--schedule', 'paper_35e'], 'table3 has the schedule paper_35e: leave --schedule away'),
    (['fig3', '--sweep', 'tau', 'heat'], 'heat.*choose from'),
])
def test_what_goes_with_what(command, message, capsys):
    with pytest.raises(SystemExit) as error:
        reproduce.main(command)
    text = capsys.readouterr().err if error.value.code == 2 else error.value.code
    assert re.search(message, text)


def test_a_queue_shorter_than_the_batch_is_left_out(tiny_table, capsys):
    console = reproduce.Console(soft_wrap=True)
    args = reproduce.parse_args(['fig3', '--sweep', 'negatives', '--seeds', '2'])
    points = reproduce.wanted_cells(args, Recipe('paper_35e'), console)
    assert [point.method for point in points] == ['negatives_128', 'negatives_256', 'default', 'negatives_1024']
    assert 'negatives_64 is left out: its queue is shorter than the batch of 96' in capsys.readouterr().out
    assert len(reproduce.wanted_cells(args, Recipe(), console)) == 5 and 'left out' not in capsys.readouterr().out
    assert [str(run.folder) for run in points[0].runs.values()] == [
        f'work_dirs/reproduce/fig3/negatives_128__resnet56_resnet20__paper_35e/seed{seed}' for seed in (5, 6)]


@pytest.mark.slow
def test_a_sweep_from_teacher_to_picture(tiny_table, monkeypatch, capsys):
    command = ['fig3', '--sweep', 'sampling', '--seeds', '1', '--epochs', '9']
    reproduce.main(command)                              # 512 negatives are there after 8 of 9 batches
    files = sorted((tiny_table / 'results' / 'fig3').glob('*'))
    assert [file.name for file in files] == [f'{name}__resnet56_resnet20__cifar_240e_in_9e.json'
                                             for name in ('default', 'unsupervised')]
    last = {}
    for file, sampling in zip(files, (None, 'unsupervised')):
        point = json.loads(file.read_text())
        assert Config.fromstring(point['config'], '.py').model.get('sampling') == sampling
        assert point['table'] == 'fig3' and list(point['seeds']) == ['5'] and len(point['seeds']['5']['curve']) == 9
        last[sampling] = point['seeds']['5']['last']
        log = (tiny_table / 'work_dirs/reproduce/fig3' / file.stem / 'seed5' / 'output.txt').read_text()
        rcd = [float(number) for number in re.findall(r'loss_rcd: ([\d.]+)', log)]
        assert rcd[0] == 0 < rcd[-1]

    picture = tiny_table / 'results' / 'fig3__cifar_240e_in_9e.png'
    picture.unlink()
    with monkeypatch.context() as patch:                 # what is finished is not touched again
        patch.setattr(subprocess, 'Popen', None)
        capsys.readouterr()
        reproduce.main(command)
        assert 'points: 2; runs to go: 0,' in capsys.readouterr().out and picture.stat().st_size > 1000
        picture.unlink()
        reproduce.main(['fig3', '--epochs', '9', '--render'])
    assert picture.stat().st_size > 1000
    page = picture.with_suffix('.md').read_text()
    said = figure3.PAPER_SAYS['sampling']['class']
    assert f'| class (default) | {last[None]:.2f} (n = 1) | – | – | {said} |' in page
    assert f'| image | {last["unsupervised"]:.2f} (n = 1) | – | – |' in page
    with pytest.raises(SystemExit, match='default__.*json is of a run with other settings: move it away'):
        reproduce.main([*command, '--amp'])


@pytest.fixture
def swept(tmp_path, monkeypatch):
    monkeypatch.setattr(reproduced, 'RESULTS', tmp_path)
    (tmp_path / 'fig3').mkdir()

    def write(label, **accuracies):
        for name, each in accuracies.items():
            file = tmp_path / 'fig3' / f'{name}__resnet56_resnet20__{label}.json'
            file.write_text(json.dumps(record(name, each)))
        return figure3.curves(label)

    return write


def panels(figure) -> dict:
    return {axes.get_xlabel(): axes for axes in figure.axes if axes.get_xlabel()}


def test_the_table_has_the_papers_words_and_what_is_missing(swept):
    page = swept('8px__cifar_240e', default=[70.0, 71.0, 69.0], negatives_1024=[70.5], kd=[68.0]).markdown()
    rows = [line for line in page.splitlines() if line.startswith('| ')]
    assert ('| number of negatives n | 512 (default) | 70.00 ± 1.00 (n = 3) | +2.00 | – | chosen; more negatives are better |'
            in rows)
    assert '| number of negatives n | 1024 | 70.50 (n = 1) | +2.50 | – | +0.05 over 512 |' in rows
    assert '| number of negatives n | 64 | not run | – | – | no number |' in rows
    assert '| temperature τ | 0.1 (default) | 70.00 ± 1.00 (n = 3) | +2.00 | – | chosen; 0.08 to 0.1 works well |' in rows
    assert '| without the relational loss | KD (1 CE + 0.5 KD) | 68.00 (n = 1) | – | – | – |' in rows
    assert 'anchors' not in page                         # of a sweep that nobody has run
    assert 'the student sees 8 pixels, schedule cifar_240e' in page and 'not comparable' in page and 'different' not in page


def test_the_curves_show_what_is_there_and_what_is_missing(swept):
    table = swept('cifar_240e', default=[70.0, 71.0, 69.0], negatives_1024=[70.5], negatives_64=[60.0], kd=[68.0, 70.0],
                  anchors_all=[65.0])
    found = panels(table.figure())
    assert set(found) == {'number of negatives n', 'temperature τ', 'anchors'}
    negatives = found['number of negatives n']
    line = negatives.containers[0].lines[0]
    assert list(line.get_xdata()) == [6, 7, 8, 9, 10]
    assert [None if y != y else y for y in line.get_ydata()] == [60, None, None, 70, 70.5]
    (bars, ) = negatives.containers[0].lines[2]
    middle = bars.get_segments()[3]
    assert middle[:, 1].tolist() == [69, 71]
    texts = [text.get_text() for text in negatives.texts]
    assert texts.count('not run') == 2 and {'60.00\nn = 1', '70.00\nn = 3', '70.50\nn = 1'} <= set(texts)
    assert [label.get_text() for label in found['anchors'].get_xticklabels()] == ['1', '8', '32', 'all']
    assert [line.get_ydata()[0] for line in found['anchors'].lines if line.get_linestyle() == '--'] == [69.0]


def test_of_the_papers_curves_only_what_its_text_says_is_drawn(swept):
    figure = swept('cifar_240e').figure()
    paper, = (axes for axes in figure.axes if axes.get_ylabel() == 'points\nover 512')
    assert paper.lines[0].get_xydata().tolist() == [[9, 0], [10, 0.05]] and len(paper.lines) == 1
    for axes in panels(figure).values():
        assert not axes.lines and {text.get_text() for text in axes.texts} == {'not run'}


def test_another_pair_has_a_page_and_a_picture_of_its_own(swept):
    swept('8px__cifar_240e', default=[70.0])
    for name, accuracies in dict(default=[40.0], batch=[39.0], kd=[38.0]).items():
        file = reproduced.RESULTS / 'fig3' / f'{name}__vgg8_vgg8__8px__cifar_240e.json'
        file.write_text(json.dumps(record(name, accuracies, pair='vgg8_vgg8')))
    one, other = figure3.all_curves()
    assert (one.pair, one.ours('default'), other.pair, other.ours('default')) == ('resnet56_resnet20', [70], 'vgg8_vgg8', [40])
    assert set(panels(other.figure())) == {'form of the critic'} and ': vgg8 → vgg8.' in other.title()
    assert [file.name for file in other.write()] == [f'fig3__vgg8_vgg8__8px__cifar_240e.{suffix}' for suffix in ('md', 'png')]
    assert '](fig3__vgg8_vgg8__8px__cifar_240e.png)' in other.markdown()


def test_names_of_pairs_are_taken_apart():
    assert recipes.split('wrn40_2_wrn16_2') == ('wrn40_2', 'wrn16_2') and recipes.split('vgg8_vgg8') == ('vgg8', 'vgg8')
    assert {'_'.join(recipes.split(pair)) for pair in recipes.PAIRS} == set(recipes.PAIRS)


def test_points_of_several_teachers_are_told(swept):
    swept('cifar_240e', default=[70.0])
    other = record('tau_0.2', [70.0])
    other['teacher']['sha256'] = 'def'
    (reproduced.RESULTS / 'fig3' / 'tau_0.2__resnet56_resnet20__cifar_240e.json').write_text(json.dumps(other))
    assert figure3.curves('cifar_240e').markdown().count('one of 2 different ones') == 2


def test_the_documentation_shows_each_recipe_or_that_there_is_none(swept):
    assert figure3.markdown() == 'No runs yet.'
    swept('cifar_240e', default=[70.0])
    swept('8px__cifar_240e', default=[50.0])
    page = figure3.markdown()
    assert page.count('###') == 2
    assert '](../benchmarks/results/reproduce/fig3__8px__cifar_240e.png)' in page
