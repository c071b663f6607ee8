"""The log shows means over its interval, the history stays short, and nothing waits for the device in between."""
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.logging import MessageHub

from benchmarks.sync_audit import WaitingOperations, audit
from mmcrrcd.engine import FiniteHook, IntervalInfoHook
from mmcrrcd.engine.graphed import is_wait
from tiny import config, crrcd, train, write_teacher


class Spy(Hook):
    """Keeps what every iteration said, and what the message hub showed after it."""
    priority = 'LOWEST'

    def __init__(self):
        self.said, self.log_vars = defaultdict(list), defaultdict(list)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        for name, value in outputs.items():
            self.said[name].append(value.item())
        for name, buffer in runner.message_hub.log_scalars.items():
            self.log_vars[name].append(list(buffer.data[0]))


def test_what_is_shown_is_the_mean_since_the_last_time(tmp_path):
    cfg = config(tmp_path, crrcd(write_teacher(tmp_path / 'teacher.pth')), epochs=2)         # 3 iterations an epoch
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=2)
    spy = Spy()
    train(cfg, spy)
    said, shown = spy.said['loss_kd'], spy.shown['train/loss_kd'][-1]
    expected = [(said[0] + said[1]) / 2, said[2], (said[3] + said[4]) / 2, said[5]]
    assert shown == pytest.approx(expected, rel=1e-6)
    assert len(spy.shown['train/lr'][-1]) == 4


def test_histories_of_every_iteration_are_cut(tmp_path):
    cfg = config(tmp_path, crrcd(write_teacher(tmp_path / 'teacher.pth')), epochs=4)
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=2)
    spy = Spy()
    train(cfg, spy)
    assert [len(times) for times in spy.shown['train/time']] == [1, *[2] * 11]


class Poison(Hook):
    """Makes a weight of the student NaN before an iteration, counted from 0."""

    def __init__(self, iteration: int):
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            next(runner.model.student.parameters()).data.fill_(float('nan'))


@pytest.mark.parametrize('iteration', [0, 4, 5])
def test_a_nan_between_two_looks_is_found_at_the_next_and_its_iteration_named(tmp_path, iteration):
    cfg = config(tmp_path, crrcd(write_teacher(tmp_path / 'teacher.pth')), epochs=2)         # 3 iterations an epoch
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=3)
    line = rf'the loss is nan at iteration {iteration + 1} \(epoch {1 + iteration // 3}\)'
    with pytest.raises(FloatingPointError, match=line):
        train(cfg, Poison(iteration))


def test_the_first_of_several_lost_losses_is_named():
    hub = MessageHub.get_instance('lost losses')
    hook = IntervalInfoHook()
    hook.values = defaultdict(list, {'loss': [torch.tensor(float(x)) for x in ('1', 'inf', '2', 'nan')]})
    runner = SimpleNamespace(message_hub=hub, optim_wrapper=SimpleNamespace(get_lr=dict), iter=9, epoch=0, work_dir='/nowhere')
    hook.publish(runner)
    assert not hook.values
    with pytest.raises(FloatingPointError, match='the loss is nan at iteration 8 '):
        FiniteHook().after_train_iter(runner, 9)


@pytest.mark.parametrize('amp', [False, True])
def test_no_operation_waits_for_the_device_between_two_lines_of_the_log(tmp_path, amp):
    cfg = config(tmp_path, crrcd(write_teacher(tmp_path / 'teacher.pth')), epochs=1)
    cfg.train_dataloader.batch_size = 4                                                      # 6 iterations
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=4)
    if amp:
        cfg.optim_wrapper.type = 'mmcrrcd.BF16OptimWrapper'
    hook = audit(cfg, iterations=6)
    assert hook.watched == 4 and hook.waits == []                                            # all but the fourth and sixth


def test_mmengines_own_hook_waits(tmp_path):
    cfg = config(tmp_path, crrcd(write_teacher(tmp_path / 'teacher.pth')), epochs=1)
    cfg.default_hooks.runtime_info = dict(type='RuntimeInfoHook')
    hook = audit(cfg, iterations=2)
    assert any('_local_scalar_dense' in wait for wait in hook.waits)


def test_pytorchs_word_on_its_own_watch_is_no_wait():
    assert is_wait('called a synchronizing CUDA operation (Triggered internally at ...)')
    assert not is_wait('Synchronization debug mode is a prototype feature and does not yet detect all synchronizing operations')


def test_the_audit_sees_what_waits():
    with WaitingOperations() as mode:
        x = torch.arange(4.0)
        x.sum().item()
        x[x > 1]
        x[torch.tensor([1, 2])]
    assert [wait.split(' at ')[0] for wait in mode.found] == ['_local_scalar_dense', 'index by booleans']
    assert all('test_interval_info.py' in wait for wait in mode.found)
