"""Tables and studies from the command to the report: records, resuming, sharing, failures."""
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from mmengine.config import Config
from tiny_table import composed

import tiny
from experiments import compose, runs, worker
from experiments.__main__ import main, parse_args
from experiments.runs import BUSY
from experiments.tables import TABLES
from mmcrrcd.errors import InputError

ONE = ['tiny', '--cell', 'kd/big_small', '--seeds', '1']


def record(name: str) -> dict:
    return json.loads(Path('records', 'tiny', f'{name}.json').read_text())


def test_a_table_from_the_command_to_the_report(work, capsys):
    main(['tiny', '--seeds', '2', '--jobs', '2'])
    names = {file.stem for file in Path('records/tiny').glob('*.json')}
    trained = ('student', 'small'), ('kd', 'big_small'), ('crrcd', 'big_small')
    assert names == {'teacher__big__cifar_240e__s5',
                     *(f'{method}__{pair}__cifar_240e__s{seed}' for seed in (5, 6) for method, pair in trained)}
    found = record('crrcd__big_small__cifar_240e__s6')
    assert found['seed'] == 6 and Config.fromstring(found['config'], '.py').randomness.seed == 6
    assert [row['epoch'] for row in found['epochs']] == [1, 2]
    assert {'accuracy', 'train_accuracy', 'loss_rcd', 'loss_kd', 'train_seconds', 'test_seconds'} <= found['epochs'][-1].keys()
    assert found['results'] == dict(last=found['epochs'][-1]['accuracy'], best=max(row['accuracy'] for row in found['epochs']))
    assert found['seconds']['wall'] > 0 and found['seconds']['step'] > 0
    assert {'commit', 'command', 'date', 'versions', 'hardware', 'threads'} <= found['provenance'].keys()
    teacher = record('teacher__big__cifar_240e__s5')
    assert found['teacher']['sha256'] == teacher['teacher']['sha256'] and teacher['seconds'] is None
    assert 0 <= teacher['results']['last'] <= 100
    page = Path('records/tiny.md').read_text()
    assert '| student-only |' in page and 'paper 70.00: ' in page and page.count('(n = 2)') >= 3 and 'paired' in page
    assert Path('records/tiny.png').exists()

    before = {file: file.stat().st_mtime_ns for file in Path('records/tiny').glob('*.json')}
    capsys.readouterr()
    main(['tiny', '--seeds', '2'])
    assert 'to go: 0' in capsys.readouterr().out
    assert before == {file: file.stat().st_mtime_ns for file in before}


def test_amp_and_views_are_part_of_the_name(work):
    main([*ONE, '--amp'])
    assert record('kd__big_small__cifar_240e__amp__s5')['training']['precision'] == 'bfloat16'
    label = compose.Recipe('paper_35e', 10, 8, True, 162).label()
    assert label == '8px__paper_35e_in_10e__amp__views162'


@pytest.mark.parametrize('options, end', [([], ''), (['--views', '2'], '__views2')])
def test_a_killed_run_goes_on_and_comes_to_the_same(work, monkeypatch, options, end):
    """Killed between the checkpoint of an epoch and its test, and in the middle of an epoch."""
    command, name = [*ONE, '--epochs', '3', *options], f'kd__big_small__cifar_240e_in_3e{end}__s5'
    main(command)
    whole = record(name)
    os.rename('records', 'first')
    os.rename('work_dirs', 'first_work_dirs')

    class Killed(BaseException):
        pass

    for where, when in (('before_val', 1), ('after_train_iter', 2), ('before_val', 3)):
        own = getattr(worker.RecordHook, where)

        def killing(self, runner, *args, own=own, when=when, **kwargs):
            own(self, runner, *args, **kwargs)
            if runner.epoch == when:
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(worker.RecordHook, where, killing)
            with pytest.raises(Killed):
                main(command)
        assert not Path(f'records/tiny/{name}.json').exists()
    main(command)
    found = record(name)
    kept = [{key: value for key, value in row.items() if 'seconds' not in key} for row in found['epochs']]
    expected = [{key: value for key, value in row.items() if 'seconds' not in key} for row in whole['epochs']]
    assert [row['loss'] for row in kept] == [row['loss'] for row in expected]
    assert kept[-1] == expected[-1] and found['results']['last'] == whole['results']['last']


def test_what_another_shell_trains_is_waited_for(work):
    folder = Path('work_dirs/experiments/tiny/kd__big_small__cifar_240e__s5')
    folder.mkdir(parents=True)
    lock = FileLock(folder / 'lock', thread_local=False)
    lock.acquire()
    (folder / 'tiny.json').write_text('{}')
    with pytest.raises(SystemExit) as error:
        worker.main([str(folder / 'tiny.json')])
    assert error.value.code == BUSY
    timer = threading.Timer(0.5, lock.release)
    timer.start()
    main(ONE)
    timer.join()
    assert record('kd__big_small__cifar_240e__s5')['results']


def test_a_failure_ends_no_other_run(work):
    TABLES['tiny'].methods.append('fails')
    with pytest.raises(SystemExit, match=r'2 failed:\nfails/big_small seed 5: .*sampling is .*') as error:
        main(['tiny', '--cell', 'fails/big_small', 'kd/big_small', '--seeds', '2'])
    TABLES['tiny'].methods.remove('fails')
    assert '\n' in str(error.value) and record('kd__big_small__cifar_240e__s6')['results']


def test_a_missing_teacher_is_trained_first_and_once(work, monkeypatch, capsys):
    own = tiny.config('unused', dict(type='mmcrrcd.Distiller', student=tiny.TEACHER, input_size=tiny.SIZE,
                                     data_preprocessor=tiny.crrcd('x')['data_preprocessor'] | dict(resolution=None)), epochs=2)
    monkeypatch.setattr(runs, 'load', lambda path: Config(own.to_dict()))

    def of_missing(*args):
        cfg = composed(*args)
        if 'teacher' in cfg.model:
            cfg.model.teacher_checkpoint, cfg.teacher_config = 'work_dirs/big', 'configs/teachers/big.py'
        return cfg

    monkeypatch.setitem(TABLES, 'tiny', TABLES['tiny']._replace(compose=of_missing))
    main(['tiny', '--cell', 'kd/big_small', 'crrcd/big_small', '--seeds', '1'])
    out = capsys.readouterr().out
    assert 'to go: 3' in out and out.index('teacher big: trained') < out.index('kd/big_small seed 5: ')
    found = record('kd__big_small__cifar_240e__s5')['teacher']
    assert found['epochs'] == 2 and found['checkpoint'] == 'big' and 0 <= found['accuracy'] <= 100


@pytest.mark.parametrize('change, message', [
    ('settings', 'is of a run with other settings: move it away'), ('teacher', 'is of another teacher than that of')])
def test_records_of_other_runs_are_not_mixed(work, monkeypatch, change, message):
    main(ONE)
    if change == 'settings':
        own = TABLES['tiny'].compose

        def other(*args):
            cfg = own(*args)
            cfg.optim_wrapper.optimizer.lr = 0.1
            return cfg

        monkeypatch.setitem(TABLES, 'tiny', TABLES['tiny']._replace(compose=other))
    else:
        weights = torch.load('teacher.pth')
        torch.save({key: value + 1 for key, value in weights.items()}, 'other.pth')
    with pytest.raises(SystemExit, match=message):
        main([*ONE[:-1], '2', *(['--teacher-checkpoint', 'other.pth'] if change == 'teacher' else [])])


@pytest.mark.parametrize('command, message', [
    (['tiny', '--cell', 'no/big_small'], 'the table has the methods teacher, student, kd, crrcd'),
    (['tiny', '--cell', 'kd/no'], 'there are the pairs big_small'),
    (['tiny', '--teacher-checkpoint', 'nothing'], '--teacher-checkpoint nothing: there is no finished training'),
    (['study', 'no'], 'there is no study no'), (['study'], 'study has a NAME'), (['tiny', 'name'], 'study has a NAME'),
    (['study', 'tiny', '--cell', 'no'], '--cell no: the study has student, kd'),
    (['table5', '--resolution', '8'], 'table5 has a resolution of its own, 16: leave --resolution away'),
    ([*ONE, '--part'], '--part is for the test images of table3'),
    (['table3', '--schedule', 'paper_35e'], 'table3 has a schedule of its own'),
    (['table5'], 'missing: data/casia_webface (CASIA-WebFace)'),
    ([*ONE, '--slurm', 'gpus'], '--slurm needs srun, which was not found')])
def test_bad_input_is_one_line(work, monkeypatch, command, message):
    monkeypatch.setenv('PATH', '')
    with pytest.raises(SystemExit) as error:
        main(command)
    assert message in str(error.value) and '\n' not in str(error.value)


def test_a_study_and_its_paired_differences(work, monkeypatch):
    monkeypatch.setattr(compose, 'of_study', lambda setting, recipe, options: with_options(setting, options))
    main(['study', 'little', '--seeds', '2'])
    page = Path('records/study_little.md').read_text()
    rows = [line.split(' | ') for line in page.splitlines() if line.startswith('| kd')]
    assert [row[0] for row in rows] == ['| kd', '| kd, low rate'] and '±' in rows[1][3] and 'n = 2' in rows[1][3]
    found = json.loads(Path('records/study_little/kd_low_rate__8px__paper_35e_in_30e__s5.json').read_text())
    assert found['training']['lr'] == 0.01 and found['setting']['student'] == 'vgg8'


def with_options(setting, options: dict) -> Config:
    cfg = TABLES['tiny'].compose(setting.method, ('big', 'small'), compose.Recipe())
    cfg.merge_from_dict(options)
    return cfg


@pytest.mark.slow
def test_a_run_in_a_process_of_its_own(work, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(work)
    cfg = compose.paired(Config(tiny.config('unused', tiny.crrcd('teacher.pth'), epochs=1).to_dict()
                                | dict(custom_imports=dict(imports=['tiny']))), 5)
    folder = work / 'run'
    folder.mkdir()
    cfg.dump(folder / 'config.py')
    about = dict(experiment='x', method='crrcd', pair='a_b', seed=5, recipe='r', resolution=8)
    (folder / 'x.json').write_text(json.dumps(dict(record=str(work / 'x.json'), about=about, teacher=None, checkpoint=None,
                                                   further=None, commit=None, command='python -m experiments x')))
    env = os.environ | dict(PYTHONPATH=os.pathsep.join([str(compose.ROOT), str(compose.ROOT / 'tests')]), OMP_NUM_THREADS='1')
    reader, writer = os.pipe()
    process = subprocess.run([sys.executable, '-m', 'experiments.worker', str(folder / 'x.json')], env=env, text=True,
                             stdin=reader, capture_output=True)
    os.close(writer)
    assert process.returncode == 0, process.stderr
    assert json.loads((work / 'x.json').read_text())['provenance']['threads'] == 1


def test_the_command_of_the_readme_is_understood():
    args = parse_args(['table1', '--cell', 'crrcd/resnet56_resnet20', '--epochs', '1', '--resolution', '8'])
    assert (args.experiment, args.epochs, args.resolution, args.seeds) == ('table1', 1, 8, None)


def test_the_config_in_a_result_is_read_as_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = Config(dict(model=dict(alpha=1)))
    runs.check_same(cfg, cfg.pretty_text, Path('r.json'))
    with pytest.raises(InputError, match='r.json is of a run with other settings'):
        runs.check_same(cfg, 'model = dict(alpha=2)', Path('r.json'))
    with pytest.raises(InputError, match='r.json holds more than names and values'):
        runs.check_same(cfg, f"{cfg.pretty_text}\nopen('planted', 'w')", Path('r.json'))
    assert not Path('planted').exists()
