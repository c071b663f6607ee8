"""A table and a study of tiny networks; each run in this process, in place of one of its own."""
import pytest
from tiny_table import InThisProcess, composed

import tiny
from experiments import records, runs
from experiments.studies import STUDIES, Setting, Study
from experiments.tables import TABLES, Table


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
