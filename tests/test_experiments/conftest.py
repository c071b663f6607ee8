"""A table and a study of tiny networks; each run in this process, in place of one of its own."""
import contextlib
import io

import pytest

import tiny
from experiments import compose, records, runs, worker
from experiments.studies import STUDIES, Setting, Study
from experiments.tables import TABLES, Table
from mmengine.config import Config


class InThisProcess:
    """Stands in for ``subprocess.Popen``: it has ended when it is there."""

    def __init__(self, command, stdout, **_):
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(io.StringIO()):
            try:
                worker.main(command[-1:])
                self.returncode = 0
            except SystemExit as error:
                print(error)
                self.returncode = error.code if isinstance(error.code, int) else 1

    def poll(self) -> int:
        return self.returncode


def composed(method: str, pair: tuple[str, str], recipe: compose.Recipe) -> Config:
    """CRRCD, KD (which is it without its relational loss), the student-only baseline, the teacher, and one that fails."""
    model = tiny.crrcd('teacher.pth', beta=0.5 if method == 'crrcd' else 0)
    if method in ('student', 'teacher'):
        network, seen = (tiny.STUDENT, 8) if method == 'student' else (tiny.TEACHER, None)
        model = dict(type='mmcrrcd.Distiller', student=network, input_size=tiny.SIZE,
                     data_preprocessor=model['data_preprocessor'] | dict(resolution=seen))
    if method == 'fails':
        model['sampling'] = 'none'
        model['beta'] = 0.5
    cfg = tiny.config('unused', model, epochs=recipe.epochs or 2)
    if recipe.amp:
        cfg.optim_wrapper.type = 'mmcrrcd.BF16OptimWrapper'
    return cfg


@pytest.fixture
def work(tmp_path, monkeypatch):
    """The folder where the commands are given; there is a trained teacher in it."""
    monkeypatch.chdir(tmp_path)
    tiny.write_teacher(tmp_path / 'teacher.pth')
    monkeypatch.setattr(records, 'RECORDS', tmp_path / 'records')
    monkeypatch.setattr(runs, 'Popen', InThisProcess)
    monkeypatch.setattr(runs, 'POLL', 0)
    monkeypatch.setattr(runs, 'RETRY', 0.1)
    runs.about_the_teacher.cache_clear()
    monkeypatch.setitem(TABLES, 'tiny', Table(
        'A tiny table', [('big', 'small')], ['teacher', 'student', 'kd', 'crrcd'], composed, work='tiny',
        paper={method: {'big_small': x} for method, x in dict(teacher=90, student=50, kd=60, crrcd=70, fails=1).items()}))
    monkeypatch.setitem(STUDIES, 'little', Study('A little study', Setting(), {
        'kd': {'method': 'kd'}, 'kd, low rate': {'method': 'kd', 'optim_wrapper.optimizer.lr': 0.01}}, reference='kd'))
    return tmp_path
