"""A run that was killed and resumed is the run that was never killed."""
import os
import signal
from multiprocessing import get_context

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from tiny import BATCH, IMAGES, config, crrcd, network, pipeline_loader, train, write_folder, write_teacher

from mmcrrcd.checkpoint import find_checkpoint
from mmcrrcd.errors import InputError

PER_EPOCH = IMAGES // BATCH


class Killed(BaseException):
    pass


class Kill(Hook):
    """Stops the process in the middle of the third epoch."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 2 * PER_EPOCH + 1:
            raise Killed


def end_of(runner: Runner) -> dict:
    return dict(model=runner.model.state_dict(), optimizer=runner.optim_wrapper.optimizer.state_dict()['state'],
                lr=runner.optim_wrapper.get_lr()['lr'])


def same(a: dict, b: dict) -> bool:
    try:
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    except AssertionError:
        return False
    return True


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    return write_teacher(tmp_path_factory.mktemp('teacher') / 'teacher.pth')


def killed_and_resumed(cfg, *hooks) -> Runner:
    with pytest.raises(Killed):
        train(cfg, Kill())
    assert find_checkpoint(cfg.work_dir).name == 'epoch_2.pth'
    return train(cfg, *hooks, resume=True)


BF16 = dict(type='mmcrrcd.BF16OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9))


@pytest.mark.parametrize('path, workers, normalizer, changes', [
    ('in_memory', 0, 'softmax', {}),
    ('in_memory', 0, 'batch', {}),
    ('in_memory', 0, 'softmax', dict(optim_wrapper=BF16)),
    ('in_memory', 0, 'softmax', dict(param_scheduler=dict(type='OneCycleLR', eta_max=0.05, total_steps=12, by_epoch=False))),
    pytest.param('mmpretrain', 0, 'softmax', {}, marks=pytest.mark.slow),
    ('mmpretrain', 2, 'softmax', dict(optim_wrapper=BF16)),
])
def test_resumed_run_ends_bit_for_bit_where_the_whole_one_does(tmp_path, teacher, path, workers, normalizer, changes):
    if path == 'mmpretrain':
        test_loader = pipeline_loader(write_folder(tmp_path / 'test', seed=1), training=False)
        changes = dict(
            train_dataloader=pipeline_loader(write_folder(tmp_path / 'train', seed=0), training=True, workers=workers),
            val_dataloader=test_loader, test_dataloader=test_loader,
            val_evaluator=dict(type='Accuracy', topk=(1, )), test_evaluator=dict(type='Accuracy', topk=(1, ))) | changes
    model = crrcd(teacher, normalizer=normalizer)
    whole = train(config(tmp_path / 'whole', model, **changes))
    halfway = {}

    class Remember(Hook):
        def before_train(self, runner):
            halfway.update({key: value.clone() for key, value in runner.model.state_dict().items()})

    resumed = killed_and_resumed(config(tmp_path / 'killed', model, **changes), Remember())

    assert same(end_of(resumed), end_of(whole))
    assert resumed.iter == whole.iter == 4 * PER_EPOCH
    # What is compared is there, and moved after the resumption.
    for key in ('student.backbone.stem.0.weight', 'losses.rcd.queue.embedding', 'losses.rcd.student_map.weight'):
        assert not torch.equal(halfway[key], resumed.model.state_dict()[key])
    assert resumed.model.state_dict()['losses.rcd.log_mean'].isfinite() == (normalizer == 'batch')


def test_early_stopping_counts_on(tmp_path, teacher):
    """Three tests in a row without a better score end the training after epoch 4, with a kill or without."""
    model = crrcd(teacher)
    whole, other = (config(tmp_path / name, model, epochs=6) for name in ('whole', 'killed'))
    for cfg in (whole, other):
        cfg.custom_hooks.append(dict(type='EarlyStoppingHook', monitor='accuracy/top1', rule='greater', patience=3,
                                     min_delta=1e9))
    assert train(whole).epoch == 4 and killed_and_resumed(other).epoch == 4


def test_without_the_seed_of_each_epoch_it_does_not(tmp_path, teacher):
    hooks = [dict(type='mmcrrcd.PlainCheckpointHook')]
    whole = train(config(tmp_path / 'whole', crrcd(teacher), custom_hooks=hooks))
    resumed = killed_and_resumed(config(tmp_path / 'killed', crrcd(teacher), custom_hooks=hooks))
    assert not same(end_of(resumed), end_of(whole))


def test_log_that_goes_on_knows_the_best_and_the_kept_checkpoints(tmp_path, teacher):
    whole = train(config(tmp_path / 'whole', crrcd(teacher)))
    resumed = killed_and_resumed(config(tmp_path / 'killed', crrcd(teacher)))
    for key in ('best_score', 'keep_ckpt_ids'):
        assert resumed.message_hub.get_info(key) == whole.message_hub.get_info(key)
    names = [sorted(path.name for path in (tmp_path / run).glob('*.pth')) for run in ('whole', 'killed')]
    assert names[0] == names[1]
    assert len(names[0]) == 2 and 'epoch_4.pth' in names[0]


def test_the_log_warns_of_nothing_that_no_setting_changes(tmp_path, teacher, capfd):
    train(config(tmp_path, crrcd(teacher), epochs=1, log_level='INFO'))
    shown = capfd.readouterr()
    log = ''.join(path.read_text() for path in tmp_path.rglob('*.log'))
    assert 'Checkpoints will be saved to' in log and 'will be deprecated' not in log + shown.out + shown.err


def killed_at(place: str, call: int, work_dir, teacher) -> None:
    """A training that kills its process for good when it comes to a call of the system for files."""
    original, calls = getattr(os, place), []

    def killed(*args, **options):
        calls.append(args)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **options)

    setattr(os, place, killed)
    train(config(work_dir, crrcd(teacher), epochs=5))


@pytest.fixture(scope='module')
def clean_process():
    """Starts functions in children of a process in which nothing has run: after some tests autograd refuses to be forked."""
    context = get_context('forkserver')
    context.set_forkserver_preload([__name__])
    return context.Process


@pytest.mark.parametrize('place', ['fsync', 'replace', 'unlink'])
@pytest.mark.parametrize('call', [*(pytest.param(call, marks=pytest.mark.slow) for call in (1, 4)), 6])
def test_kill_while_a_checkpoint_is_written_leaves_one_to_resume_from(tmp_path, teacher, clean_process, place, call):
    """And the training after it ends as it would have."""
    child = clean_process(target=killed_at, args=(place, call, tmp_path, teacher))
    child.start()
    child.join(300)
    assert child.exitcode == -signal.SIGKILL
    cfg = config(tmp_path, crrcd(teacher), epochs=5)
    kept = {path.name: torch.load(path, weights_only=True) for path in tmp_path.glob('*.pth')}
    if kept:
        epochs = [checkpoint['meta']['epoch'] for name, checkpoint in kept.items() if name.startswith('epoch')]
        assert kept[find_checkpoint(tmp_path).name]['meta']['epoch'] == max(epochs)
    runner = train(cfg, resume=True)
    assert runner.epoch == 5 and not list(tmp_path.glob('*.part'))
    assert find_checkpoint(tmp_path).name == 'epoch_5.pth'
    assert [file.name for file in tmp_path.glob('epoch_*')] == ['epoch_5.pth']
    best, = tmp_path.glob('best_*')
    assert str(best) == runner.message_hub.get_info('best_ckpt')


CHECKED = dict(custom_hooks=[dict(type='mmcrrcd.CheckInputHook'), dict(type='mmcrrcd.PlainCheckpointHook')])


@pytest.fixture(scope='module')
def trained(tmp_path_factory, teacher):
    work_dir = tmp_path_factory.mktemp('trained')
    train(config(work_dir, crrcd(teacher), epochs=1, **CHECKED))
    return str(find_checkpoint(work_dir))


def test_a_checkpoint_that_fits_is_resumed(trained, tmp_path, teacher):
    assert train(config(tmp_path, crrcd(teacher), epochs=2, load_from=trained, **CHECKED), resume=True).epoch == 2


@pytest.mark.parametrize('change, message', [
    (dict(student=network((8, 8, 16, 24))), r'student\.\S+ is \(.*\), not \('), (dict(beta=0), r'unknown losses\.rcd\.'),
    (dict(objective=dict(hint=dict(type='mmcrrcd.FitNetLoss'))), r'no losses\.hint\.')])
def test_a_checkpoint_of_another_training_is_not_resumed(trained, tmp_path, teacher, change, message):
    with pytest.raises(InputError, match=f'^{trained} is not a checkpoint of this training: {message}') as error:
        train(config(tmp_path, crrcd(teacher) | change, load_from=trained, **CHECKED), resume=True)
    assert '\n' not in str(error.value)


def test_a_work_directory_of_another_training_is_not_resumed(tmp_path, teacher):
    train(config(tmp_path, crrcd(teacher, beta=0), epochs=1, **CHECKED))
    with pytest.raises(InputError, match=f'^the last one in {tmp_path} is not a checkpoint of this training: no losses.rcd'):
        train(config(tmp_path, crrcd(teacher), **CHECKED), resume=True)


def test_a_training_starts_from_the_student_of_any_method_but_no_other_student(trained, tmp_path, teacher):
    model = crrcd(teacher, beta=0, objective=dict(hint=dict(type='mmcrrcd.FitNetLoss')))
    start = {}

    class Remember(Hook):
        def before_train(self, runner):
            start.update({key: value.clone() for key, value in runner.model.state_dict().items()})

    train(config(tmp_path / 'same', model, epochs=1, load_from=trained, **CHECKED), Remember())
    saved = torch.load(trained, weights_only=True)['state_dict']
    key = 'student.backbone.stem.0.weight'
    assert torch.equal(start[key], saved[key])
    other = model | dict(student=network((8, 8, 16, 24)))
    with pytest.raises(InputError, match=f'^{trained} is not a checkpoint of this student: backbone'):
        train(config(tmp_path / 'other', other, load_from=trained, **CHECKED))
    bare, start_of = tmp_path / 'bare.pth', dict(start)  # of mmpretrain, without the student's name before its keys
    torch.save({key.removeprefix('student.'): value for key, value in saved.items() if key.startswith('student.')}, bare)
    start.clear()
    train(config(tmp_path / 'bare', model, epochs=1, load_from=str(bare), **CHECKED), Remember())
    assert torch.equal(start[key], start_of[key])
