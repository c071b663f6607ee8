"""The demo's parts, and a whole demo of one epoch on a few images."""
import runpy
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from rich.console import Console

from mmcrrcd.interrupt import CODE, LINE
from mmcrrcd.registry import MODELS

ROOT = Path(__file__).parents[2]
DEMO = ROOT / 'tools' / 'demo.py'


def config(name: str) -> Config:
    return Config.fromfile(ROOT / 'configs' / 'demo' / f'{name}.py')


@pytest.fixture
def demo():
    return runpy.run_path(str(DEMO))


def test_students_differ_in_the_objective_only():
    student_only, kd, crrcd = (config(name).to_dict() for name in ('student_only', 'kd', 'crrcd'))
    for other in (kd, crrcd):
        assert {k: v for k, v in other.items() if k != 'model'} == {k: v for k, v in student_only.items() if k != 'model'}
        for part in ('student', 'data_preprocessor'):
            assert other['model'][part] == student_only['model'][part]
    assert student_only['data_preprocessor']['resolution'] == 8
    assert set(crrcd['model']) - set(student_only['model']) == {
        'teacher', 'teacher_checkpoint', 'alpha', 'beta', 'backbone_gradient'}   # the weights for AdamW (docs/method.md)


@pytest.mark.parametrize('name', ['teacher', 'student_only', 'kd', 'crrcd'])
def test_tools_that_test_and_export_know_the_data(name):
    cfg = config(name)
    assert cfg.test_dataloader == cfg.val_dataloader and cfg.test_evaluator == cfg.val_evaluator and cfg.test_cfg == {}


def test_kd_has_the_weight_and_temperature_that_it_has_in_crrcd():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        kd, crrcd = (MODELS.build(config(name).model) for name in ('kd', 'crrcd'))
    assert kd.weights['kd'] == crrcd.weights['kd']
    assert kd.losses['kd'].temperature == crrcd.losses['kd'].temperature


def test_the_table_says_what_was_measured(demo):
    results = [demo['Result']('teacher', 32, 12345, 87.654, 61.4, []), demo['Result']('student, KD', 8, 999, 5.0, 0.6, [])]
    console = Console(width=100)
    with console.capture() as capture:
        console.print(demo['tabulate'](results))
    lines = [line.split() for line in capture.get().replace('│', ' ').splitlines()]
    assert ['teacher', '32', 'x', '32', '12,345', '87.65', '%', '61', 's'] in lines
    assert ['student,', 'KD', '8', 'x', '8', '999', '5.00', '%', '1', 's'] in lines


def test_one_epoch_of_everything(demo, monkeypatch, tmp_path, capsys):
    load_config = demo['load_config']

    def few_images(name, work_dir, epochs):
        cfg = load_config(name, work_dir, epochs)
        cfg.train_dataloader.dataset.num_images, cfg.val_dataloader.dataset.num_images = 192, 80
        return cfg

    monkeypatch.setitem(demo['main'].__globals__, 'load_config', few_images)
    demo['main'](['--epochs', '1', '--work-dir', str(tmp_path)])
    out = capsys.readouterr().out
    for row in ('teacher', 'student-only baseline', 'student, KD', 'student, CRRCD'):
        assert row in out
    assert 'mmengine' not in out                         # its log is in the files
    assert all(list((tmp_path / name).glob('*/*.log')) for name in ('teacher', 'student_only', 'kd', 'crrcd'))
    assert (tmp_path / 'answers.png').stat().st_size > 10_000
    teacher = torch.load(tmp_path / 'teacher' / 'epoch_1.pth', weights_only=True)
    assert teacher['meta']['epoch'] == 1


def test_ctrl_c_ends_in_one_line(monkeypatch, tmp_path, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, 'argv', ['demo.py', '--work-dir', str(tmp_path)])
    monkeypatch.setattr(Config, 'fromfile', interrupt)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(DEMO), run_name='__main__')
    assert ended.value.code == CODE and capsys.readouterr().err == LINE + '\n'
