"""tools/compare.py on trainings of one's own, and tools/train.py --vis."""
import ast
import json
import logging.config
import sys
import types

import pytest
from mmengine.config import Config
from tiny import config, crrcd, network, train, write_teacher

from mmcrrcd.config import read_config
from mmcrrcd.visualization import backends
from mmcrrcd.visualization.comparison import read_training
from tools import compare
from tools import train as train_tool


@pytest.fixture(scope='module')
def work(tmp_path_factory):
    """A student with CRRCD, resumed once, and one without a teacher."""
    folder = tmp_path_factory.mktemp('work')
    teacher = write_teacher(folder / 'teacher.pth')
    train(config(folder / 'crrcd', crrcd(teacher), epochs=2))
    train(config(folder / 'crrcd', crrcd(teacher), epochs=3), resume=True)
    plain = dict(type='mmcrrcd.Distiller', student=network(), data_preprocessor=crrcd(teacher)['data_preprocessor'])
    train(config(folder / 'plain', plain, epochs=3, optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01))))
    return folder


def compared(work, capsys, *argv) -> tuple[dict[str, list[str]], list[dict]]:
    """Rows of the table under their names, and the numbers beside the picture."""
    compare.main([*map(str, argv), '--out', str(work / 'out' / 'comparison.png')])
    assert (work / 'out' / 'comparison.png').stat().st_size > 5000
    lines = [line for line in capsys.readouterr().out.splitlines() if '|' in line]
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    return {row[0]: row[1:] for row in rows}, json.loads((work / 'out' / 'comparison.json').read_text())


def test_the_table_says_what_was_reached_and_what_differs(work, capsys):
    rows, numbers = compared(work, capsys, work / 'crrcd', work / 'plain')
    assert rows[''] == ['crrcd', 'plain'] and rows['epochs done'] == ['3', '3']
    for run, last, best, record in zip(('crrcd', 'plain'), rows['accuracy/top1, last'], rows['accuracy/top1, best'], numbers):
        curve = {int(epoch): value for epoch, value in record['values'].items()}
        assert list(curve) == [1, 2, 3] and float(last) == round(curve[3], 2), run
        top = max(curve.values())
        assert best == f'{top:.2f} (epoch {min(epoch for epoch in curve if curve[epoch] == top)})'
        assert 0 < record['seconds'] < 120
    assert rows['model.type'] == ['mmcrrcd.CRRCD', 'mmcrrcd.Distiller']
    assert rows['optim_wrapper.optimizer.lr'] == ['0.05', '0.01'] and rows['model.beta'] == ['0.5', '–']
    assert rows['model.teacher'] == ['mmpretrain.ImageClassifier', '–']
    assert not any(name.startswith('model.teacher.') for name in rows)
    assert numbers[1]['settings']['model.teacher'] == '–'
    assert not {'work_dir', 'experiment_name', 'resume', 'train_cfg.max_epochs', 'model.student.type'} & rows.keys()


def test_a_training_started_anew_replaces_the_log_of_the_one_before(work, tmp_path):
    for name, epochs in (('20260101_000000', 3), ('20260102_000000', 1)):
        part = tmp_path / 'run' / name / 'vis_data'
        part.mkdir(parents=True)
        lines = []
        for epoch in range(1, epochs + 1):
            lines.append(dict(loss=1.0, time=0.5, epoch=epoch, iter=10 * epoch, step=10 * epoch))
            lines.append({'accuracy/top1': epochs, 'step': epoch})
        (part / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)) + '\n{"loss": 0.3')    # killed while it wrote
    found = read_training(tmp_path / 'run')
    assert found.curve('accuracy/top1') == {1: 1} and found.seconds == 5.0 and found.unit == 'epoch'


@pytest.mark.parametrize('argv, match', [
    (['nothing'], 'nothing is no work directory of a training'),
    (['crrcd', '--metric', 'accuracy/top2'], "accuracy/top2 is in none of the logs, .* did you mean 'accuracy/top1'"),
    (['crrcd', '--out', 'picture.txt'], 'ends in none of')])
def test_wrong_input_is_one_line(work, monkeypatch, argv, match):
    monkeypatch.chdir(work)
    with pytest.raises(SystemExit, match=match):
        compare.main(argv)


def test_a_damaged_log_is_one_line(work, tmp_path):
    part = tmp_path / 'run' / '20260101_000000' / 'vis_data'
    part.mkdir(parents=True)
    (part / 'scalars.json').write_text('{"step": 1}\n[]\n{"step": 2}\n')
    with pytest.raises(SystemExit, match='scalars.json, line 2, is no line of a log'):
        compare.main([str(tmp_path / 'run')])


class Writer:
    """Stands in for TensorBoard's."""

    def __init__(self, folder):
        self.numbers = []
        Writer.last = self

    def add_scalar(self, name, value, step):
        self.numbers.append((name, value, step))

    def add_text(self, *_):
        pass

    close = add_text


def test_every_number_of_the_log_goes_to_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setattr(backends, 'find_spec', lambda name: True)
    monkeypatch.setitem(sys.modules, 'torch.utils.tensorboard', types.SimpleNamespace(SummaryWriter=Writer))
    teacher = write_teacher(tmp_path / 'teacher.pth')
    cfg = config('unused', crrcd(teacher), epochs=1)
    cfg.dump(tmp_path / 'crrcd.py')
    train_tool.main([str(tmp_path / 'crrcd.py'), '--work-dir', str(tmp_path / 'run'), '--vis', 'tensorboard'])
    names = {name for name, _, _ in Writer.last.numbers}
    assert {'loss', 'loss_kd', 'loss_rcd', 'accuracy/top1', 'lr'} <= names
    assert read_training(tmp_path / 'run').curve('accuracy/top1')        # beside the log of before


def test_where_a_training_is_watched_is_named_by_its_folder(monkeypatch):
    monkeypatch.setattr(backends, 'find_spec', lambda name: True)
    cfg = Config(dict(work_dir='/home/work_dirs/things/kd', visualizer=dict(type='Visualizer', vis_backends=[
        dict(type='LocalVisBackend'), dict(type='WandbVisBackend', init_kwargs=dict(project='mine'))])))
    backends.add_backends(cfg, ['wandb', 'mlflow'])
    assert [each['type'] for each in cfg.visualizer.vis_backends] == ['LocalVisBackend', 'WandbVisBackend',
                                                                     'mmcrrcd.MLflowBackend']
    assert cfg.visualizer.vis_backends[2].run_name == 'things/kd'
    assert cfg.visualizer.vis_backends[1].init_kwargs.project == 'mine'


class MLflow(types.ModuleType):
    """Stands in for MLflow's module, which sets logging up when it is imported, and so closes all files of logs."""

    def __init__(self):
        super().__init__('mlflow')
        self.said = []

    def __getattr__(self, name):
        if name.startswith('_'):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.said.append((name, args, kwargs))


def test_mlflow_writes_where_its_own_settings_say(tmp_path, monkeypatch):
    module = MLflow()

    def import_mlflow(name):
        logging.config.dictConfig(dict(version=1, disable_existing_loggers=False))
        return module

    monkeypatch.setattr(backends, 'find_spec', lambda name: True)
    monkeypatch.setattr(backends, 'import_module', import_mlflow)
    config('unused', crrcd(write_teacher(tmp_path / 'teacher.pth')), epochs=1, log_level='INFO').dump(tmp_path / 'crrcd.py')
    train_tool.main([str(tmp_path / 'crrcd.py'), '--work-dir', str(tmp_path / 'run'), '--vis', 'mlflow'])
    names = [name for name, *_ in module.said]
    assert names[:2] == ['set_experiment', 'start_run'] and names[-1] == 'end_run' and 'set_tracking_uri' not in names
    assert module.said[1][2] == dict(run_name='run')
    assert any('accuracy/top1' in args[0] for name, args, _ in module.said if name == 'log_metrics')
    log, = (tmp_path / 'run').glob('*/*.log')
    assert 'accuracy/top1' in log.read_text()            # it goes on


@pytest.mark.parametrize('names', [[], ['tensorboard']])
def test_a_config_in_python_can_be_written_afterwards(monkeypatch, names):
    monkeypatch.setattr(backends, 'find_spec', lambda name: True)
    cfg = read_config('mmcrrcd::demo/kd.py')
    cfg.work_dir = 'run'
    backends.add_backends(cfg, names)
    ast.parse(cfg.pretty_text)


def test_a_missing_package_is_named_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(backends, 'find_spec', lambda name: None)
    config('unused', crrcd(tmp_path / 'teacher.pth'), epochs=1).dump(tmp_path / 'crrcd.py')
    with pytest.raises(SystemExit, match='--vis wandb needs the package wandb: pip install wandb'):
        train_tool.main([str(tmp_path / 'crrcd.py'), '--work-dir', str(tmp_path / 'run'), '--vis', 'wandb'])
    assert not (tmp_path / 'run').exists()


def test_the_log_tells_the_time_left(tmp_path):
    teacher = write_teacher(tmp_path / 'teacher.pth')
    train(config(tmp_path / 'run', crrcd(teacher), epochs=2, log_level='INFO'))
    log, = (tmp_path / 'run').glob('*/*.log')
    lines = [line for line in log.read_text().splitlines() if 'Epoch(train)' in line]
    assert len(lines) == 2 and all('eta: 0:00:' in line for line in lines)
