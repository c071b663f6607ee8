"""What comes from elsewhere runs no code, and what was reached is not lost: the Runner of this package."""
import errno
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from torch.utils.data import DataLoader

from mmcrrcd.checkpoint import UnfinishedTraining, find_checkpoint, read_network
from mmcrrcd.command_line import one_line_errors
from mmcrrcd.engine.launch import build_runner, end_together
from mmcrrcd.engine.work_dir import BeingTrained, one_training, refuse_another
from mmcrrcd.errors import InputError
from mmcrrcd.torch_file import safe_load
from tiny import BATCH, IMAGES, STUDENT, config, crrcd, in_memory_loader, train, write_teacher

CODE = "open('planted', 'w')"


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp('teacher') / 'teacher.pth')


@pytest.fixture(scope='module')
def finished(tmp_path_factory, teacher):
    """A training of two epochs; copy it before you change it."""
    folder = tmp_path_factory.mktemp('finished') / 'run'
    train(config(folder, crrcd(teacher), epochs=2))
    return folder


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(finished, tmp_path / 'run'))


class Lines(logging.Handler):
    def __init__(self):
        super().__init__()
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


def resumed(cfg, *hooks, **changes) -> tuple:
    """The runner, and what it logged."""
    from mmengine.logging import MMLogger
    lines, seen = Lines(), []

    class Listen(Hook):
        priority = 'HIGHEST'

        def before_run(self, runner):
            runner.logger.addHandler(lines)
            runner.logger.setLevel('INFO')
            seen.append(runner.logger)

    cfg = Config(cfg.to_dict() | changes)
    try:
        return train(cfg, Listen(), *hooks, resume=True), lines.texts
    finally:
        for logger in [*seen, MMLogger.get_current_instance()]:
            logger.removeHandler(lines)


def changed(file: Path, change) -> None:
    checkpoint = torch.load(file, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, file)


def test_the_config_in_a_checkpoint_is_not_run(run, teacher):
    changed(find_checkpoint(run), lambda checkpoint: checkpoint['meta'].update(config=CODE, cfg=CODE))
    assert resumed(config(run, crrcd(teacher), epochs=3))[0].epoch == 3
    assert not Path('planted').exists()


@pytest.mark.parametrize('how', ['resume', 'load_from', 'pretrained', 'teacher'])
@pytest.mark.parametrize('file', ['https://host/a.pth', 'torchvision://resnet18', 'code.pth'])
def test_no_way_into_a_training_runs_code_or_fetches(tmp_path, teacher, monkeypatch, how, file):
    class Code:
        def __reduce__(self):
            return eval, (CODE, )

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('socket.socket.connect', lambda *_: pytest.fail('it was fetched'))
    torch.save(dict(state_dict={}, meta=dict(epoch=1, iter=3), code=Code()), 'code.pth')
    init = dict(type='Pretrained', checkpoint=file)
    model = crrcd(teacher)
    if how == 'pretrained':
        model = model | dict(student=dict(STUDENT, backbone=dict(STUDENT['backbone'], init_cfg=init)))
    if how == 'teacher':
        model = model | dict(teacher_checkpoint=None, teacher=dict(model['teacher'], init_cfg=init))
    changes = dict(load_from=file) if how in ('resume', 'load_from') else {}
    with pytest.raises(InputError, match='is an address: download|has more in it than numbers') as error:
        train(config(tmp_path / 'run', model, epochs=1, **changes), resume=how == 'resume')
    assert '\n' not in str(error.value) and not Path('planted').exists()


def test_pretrained_weights_of_a_local_file_are_taken(tmp_path, teacher, finished):
    file = str(find_checkpoint(finished))
    backbone = dict(STUDENT['backbone'], init_cfg=dict(type='Pretrained', checkpoint=file, prefix='student.backbone'))
    start = {}

    class Remember(Hook):
        def before_train(self, runner):
            start.update({key: value.clone() for key, value in runner.model.state_dict().items()})

    train(config(tmp_path, crrcd(teacher) | dict(student=dict(STUDENT, backbone=backbone)), epochs=1), Remember())
    key = 'student.backbone.stem.0.weight'
    assert torch.equal(start[key], safe_load(file)['state_dict'][key])


@pytest.mark.parametrize('pointer', [None, '', '/nowhere/epoch_2.pth', 'https://host/epoch_9.pth'])
def test_a_training_goes_on_whatever_became_of_the_pointer_or_the_folders_name(run, teacher, pointer):
    moved = run.rename(run.with_name('moved'))
    (moved / 'last_checkpoint').unlink()
    if pointer is not None:
        (moved / 'last_checkpoint').write_text(pointer)
    runner, lines = resumed(config(moved, crrcd(teacher), epochs=3))
    assert runner.epoch == 3 and any('resumed epoch: 2' in line for line in lines)
    assert not any('is not defined in message_hub' in line or 'Although resumed key' in line for line in lines)
    assert len(list(moved.glob('best_*'))) == 1 and not run.exists()


def test_resuming_where_there_is_nothing_is_said(tmp_path, teacher):
    assert any('the training starts anew' in line for line in resumed(config(tmp_path, crrcd(teacher), epochs=1))[1])


def test_no_file_is_removed_that_a_checkpoint_only_claims_to_be_its_own(run, teacher):
    precious = run.parent / 'precious'
    precious.mkdir()
    (precious / 'best_a.pth').write_text('mine')

    def plant(checkpoint):
        checkpoint['message_hub']['runtime_info'].update(best_ckpt=str(precious), keep_ckpt_ids=['../precious/best_a', 1, 2],
                                                         best_score=-1.)

    changed(find_checkpoint(run), plant)
    assert resumed(config(run, crrcd(teacher), epochs=4))[0].epoch == 4
    assert (precious / 'best_a.pth').read_text() == 'mine'


@pytest.mark.parametrize('name', ['epoch_3.pth.part', 'last_checkpoint.part', 'last_checkpoint', 'epoch_3.pth'])
def test_a_planted_link_is_not_followed(run, teacher, name):
    precious = run.parent / 'precious'
    precious.write_text('mine')
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(precious)
    assert resumed(config(run, crrcd(teacher), epochs=3))[0].epoch == 3
    assert precious.read_text() == 'mine' and find_checkpoint(run) == run / 'epoch_3.pth'
    assert not (run / name).is_symlink()


def test_what_killed_processes_left_is_cleared(run, teacher):
    for name in ('epoch_1.pth.part', 'best_x.pth.part', 'last_checkpoint.part'):
        (run / name).write_bytes(b'half')
    train(config(run, crrcd(teacher), epochs=3), resume=True)
    assert not list(run.glob('*.part'))


def test_a_best_checkpoint_is_not_resumed_from(run, teacher):
    best, = run.glob('best_*')
    with pytest.raises(InputError, match="lacks the optimizer's state, as the best checkpoints do, which") as error:
        train(config(run, crrcd(teacher), load_from=str(best)), resume=True)
    assert '\n' not in str(error.value) and str(best) in str(error.value)


@pytest.mark.parametrize('change', [
    lambda checkpoint: checkpoint['meta'].pop('epoch'), lambda checkpoint: checkpoint['meta'].update(iter=-1),
    lambda checkpoint: checkpoint.update(meta=None), lambda checkpoint: checkpoint.pop('message_hub'),
    lambda checkpoint: checkpoint.pop('param_schedulers'), lambda checkpoint: checkpoint['optimizer'].pop('param_groups'),
    lambda checkpoint: checkpoint.update(param_schedulers='x'), lambda checkpoint: checkpoint.update(optimizer=[1]),
    lambda checkpoint: checkpoint['optimizer']['param_groups'].clear(), lambda checkpoint: checkpoint['meta'].update(seed='x'),
    lambda checkpoint: checkpoint['state_dict']['student.head.fc.bias'].fill_(float('nan'))])
def test_a_checkpoint_that_lacks_something_is_one_line(run, teacher, change):
    changed(find_checkpoint(run), change)
    with pytest.raises(InputError) as error:
        train(config(run, crrcd(teacher), epochs=3), resume=True)
    assert '\n' not in str(error.value) and str(run) in str(error.value)


def test_other_settings_are_said_in_one_line_each(run, teacher):
    other = write_teacher(run.parent / 'other.pth')
    torch.save({key: 1.01 * value if value.is_floating_point() else value for key, value in safe_load(other).items()}, other)
    model = crrcd(other, tau=0.2, alpha=0.3)
    optimizer = dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4)
    _, lines = resumed(config(run, model, epochs=3, optim_wrapper=dict(type='OptimWrapper', optimizer=optimizer)))
    said = [line.removeprefix('resumed with another setting: ') for line in lines if line.startswith('resumed with another')]
    assert set(said) == {
        'model.tau is 0.2 here and not set in the checkpoint: that of now is taken',
        'model.alpha is 0.3 here and not set in the checkpoint: that of now is taken',
        f'model.teacher_checkpoint is {str(other)!r} here and {str(teacher)!r} in the checkpoint: that of now is taken',
        'train_cfg.max_epochs is 3 here and 2 in the checkpoint: that of now is taken',
        "optim_wrapper.optimizer.lr is 0.01 here and 0.05 in the checkpoint: the checkpoint's is taken",
        f'the teacher at {other} is another one now, with other weights'}


def test_the_same_settings_are_not_worth_a_line(run, teacher):
    assert not any('another' in line for line in resumed(config(run, crrcd(teacher), epochs=2))[1])


def test_after_the_last_epoch_resuming_tests_once_more(run, teacher):
    before = {file.name: file.read_bytes() for file in run.glob('*.pth')}
    runner, lines = resumed(config(run, crrcd(teacher), epochs=2))
    assert runner.epoch == 2 and runner.val_evaluator.dataset_meta is not None
    assert 'testing the checkpoint that was resumed from' in lines
    assert {file.name: file.read_bytes() for file in run.glob('*.pth')} == before


def test_a_kill_between_checkpoint_and_test_loses_neither_the_test_nor_the_best(tmp_path, teacher):
    class Killed(BaseException):
        pass

    class Kill(Hook):
        def before_val_epoch(self, runner):
            if runner.epoch == 1:
                raise Killed

    whole = train(config(tmp_path / 'whole', crrcd(teacher), epochs=1))
    cfg = config(tmp_path / 'killed', crrcd(teacher), epochs=1)
    with pytest.raises(Killed):
        train(cfg, Kill())
    assert not list((tmp_path / 'killed').glob('best_*'))
    runner, _ = resumed(cfg)
    assert runner.message_hub.get_info('best_score') == whole.message_hub.get_info('best_score')
    assert [file.name for file in (tmp_path / 'killed').glob('best_*')] == ['best_accuracy_top1_epoch_1.pth']


def by_iterations(work_dir: Path, teacher: Path, iterations: int = 6, every: int = 2) -> Config:
    cfg = config(work_dir, crrcd(teacher), train_cfg=dict(by_epoch=False, max_iters=iterations, val_interval=every),
                 param_scheduler=dict(type='MultiStepLR', by_epoch=False, milestones=[4]),
                 train_dataloader=in_memory_loader(0, True) | dict(sampler=dict(type='InfiniteSampler')))
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=every)
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks if 'EpochSeed' not in hook['type']]
    return cfg


@pytest.mark.parametrize('key', ['student.head.fc.weight', 'student.backbone.stem.1.running_mean'])
@pytest.mark.parametrize('by_epoch', [True, False])
def test_neither_weights_nor_buffers_that_are_not_finite_are_saved(tmp_path, teacher, key, by_epoch):
    class Lose(Hook):
        def after_train_iter(self, runner, **_):
            if runner.iter == 2 * IMAGES // BATCH - 1:
                runner.model.state_dict()[key].view(-1)[0] = float('nan')

    cfg = config(tmp_path, crrcd(teacher), epochs=4) if by_epoch else by_iterations(tmp_path, teacher)
    with pytest.raises(FloatingPointError, match=f'{key} is not finite .* last good checkpoint is'):
        train(cfg, Lose())
    files = list(tmp_path.glob('*.pth'))
    assert len(files) == 2
    assert all(safe_load(file)['state_dict'][key].isfinite().all() for file in files)


def test_the_best_checkpoint_is_looked_at_too(tmp_path, teacher):
    class Lose(Hook):
        def after_val_epoch(self, runner, metrics=None):
            runner.model.state_dict()['student.backbone.stem.1.running_var'][0] = float('inf')

    with pytest.raises(FloatingPointError, match='running_var is not finite'):
        train(config(tmp_path, crrcd(teacher), epochs=1), Lose())
    assert [file.name for file in tmp_path.glob('*.pth')] == ['epoch_1.pth']


def test_training_by_iterations_goes_on_and_tests(tmp_path, teacher):
    train(by_iterations(tmp_path, teacher, 4))
    runner, lines = resumed(by_iterations(tmp_path, teacher, 6))
    assert runner.iter == 6 and 'testing the checkpoint that was resumed from' in lines


def test_mmengines_checkpoint_hook_is_built_as_the_atomic_one(tmp_path, teacher):
    for kind in ('CheckpointHook', 'mmengine.hooks.CheckpointHook'):
        cfg = config(tmp_path, crrcd(teacher), default_hooks=dict(checkpoint=dict(type=kind, interval=2)))
        hooks = [type(hook).__name__ for hook in build_runner(cfg).hooks]
        assert 'AtomicCheckpointHook' in hooks and 'CheckpointHook' not in hooks


def forked(function: Callable[[Connection], None]) -> tuple[BaseProcess, Connection]:
    """``function`` in a child of this process, which nothing has to be imported for, and what it sends from there."""
    here, there = Pipe(duplex=False)                     # short messages come through in one piece
    process = get_context('fork').Process(target=function, args=(there, ))
    process.start()
    assert here.poll(60)
    return process, here


def test_one_training_a_folder_and_the_other_is_named(tmp_path):
    def hold(connection: Connection) -> None:
        with one_training(tmp_path):
            connection.send('held')
            time.sleep(60)

    process, _ = forked(hold)
    try:
        with pytest.raises(BeingTrained, match=f'is being trained by process {process.pid} on '), one_training(tmp_path):
            pass
        with one_training(tmp_path / 'another'):
            pass
    finally:
        process.kill()
        process.join()
    with one_training(tmp_path):                         # the lock has ended with its process
        pass


def test_a_planted_lock_is_not_followed(tmp_path):
    (tmp_path / 'precious').write_text('mine')
    for name in ('.training.lock', '.training.by', '.training.by.part'):
        (tmp_path / name).symlink_to(tmp_path / 'precious')
    with one_training(tmp_path):
        assert (tmp_path / 'precious').read_text() == 'mine'


def test_a_new_training_over_another_is_refused(run):
    with pytest.raises(InputError, match=r'has a training already \(epoch_2.pth\): go on with --resume'):
        refuse_another(run)
    refuse_another(run / 'nothing')


@pytest.mark.skipif(sys.platform != 'linux', reason='asked of Linux')
def test_workers_end_with_a_process_that_is_killed():
    class Data:
        def __init__(self, connection: Connection):
            self.connection = connection

        def __len__(self):
            return 100

        def __getitem__(self, i):
            self.connection.send(os.getpid())
            time.sleep(60)

    def load(connection: Connection) -> None:
        end_together('none')
        next(iter(DataLoader(Data(connection), num_workers=2)))

    process, pids = forked(load)
    workers = [pids.recv() for _ in range(2)]
    process.kill()
    process.join()
    deadline = time.time() + 5
    while time.time() < deadline and any(os.path.exists(f'/proc/{worker}/exe') for worker in workers):
        time.sleep(0.05)
    assert not any(os.path.exists(f'/proc/{worker}/exe') for worker in workers)


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_fails_while_training_is_one_line_and_nothing_is_lost(tmp_path, teacher, monkeypatch, code):
    """A full one, one that has become read-only, one that may no longer be written: the first checkpoint stays."""
    real, written = os.fsync, []

    def failing(handle):
        if list((tmp_path / 'run').glob('epoch_1.pth')) and list((tmp_path / 'run').glob('epoch_2.pth.*.part')):
            raise OSError(code, os.strerror(code))
        written.append(handle)
        return real(handle)

    monkeypatch.setattr('mmcrrcd.files.os.fsync', failing)
    with pytest.raises(SystemExit) as error, one_line_errors():
        train(config(tmp_path / 'run', crrcd(teacher), epochs=3))
    assert str(error.value).startswith(f'error: {tmp_path}/run/epoch_2.pth cannot be read or written: {os.strerror(code)}')
    assert written and find_checkpoint(tmp_path / 'run').name == 'epoch_1.pth' and not list((tmp_path / 'run').glob('*.part'))


def test_a_work_directory_on_a_file(tmp_path, monkeypatch):
    (tmp_path / 'file').write_text('mine')
    for folder in ('file', 'file/run'):
        with pytest.raises(InputError, match='cannot be a work directory'), one_training(tmp_path / folder):
            pass
    assert (tmp_path / 'file').read_text() == 'mine'


def test_an_early_stopped_training_is_finished_until_it_goes_on(tmp_path, teacher):
    stop = dict(type='EarlyStoppingHook', monitor='accuracy/top1', rule='greater', patience=1, stopping_threshold=-1.)
    cfg = config(tmp_path / 'run', crrcd(teacher), epochs=5)
    cfg.custom_hooks = [*cfg.custom_hooks, stop]
    train(cfg)
    last = find_checkpoint(tmp_path / 'run')
    assert last.name == 'epoch_1.pth' and read_network(tmp_path / 'run')
    assert safe_load(last)['meta']['epoch'] == 1

    class Killed(Hook):
        def before_train_epoch(self, runner):
            if runner.epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):               # goes on without the hook, to be stopped from outside
        train(config(tmp_path / 'run', crrcd(teacher), epochs=5), Killed(), resume=True)
    with pytest.raises(UnfinishedTraining, match='training stopped after epoch 2 of 5'):
        read_network(tmp_path / 'run')
