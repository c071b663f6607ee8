"""The hooks of every run, one by one."""
import copy
import random
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.optim import ConstantLR, MultiStepLR
from mmengine.runner import EpochBasedTrainLoop
from mmpretrain.datasets.transforms import PackInputs
from tiny import MEAN, SIZE, STD, STUDENT, TEACHER, config, crrcd, pipeline_loader, train, write_folder, write_teacher
from torch.utils.data import DataLoader, Dataset, Subset

from mmcrrcd.engine import (CheckInputHook, CriticWatchHook, EpochSeedHook, FiniteHook, PlainCheckpointHook, seed_all,
                            seed_worker)
from mmcrrcd.datasets import ResolutionPair
from mmcrrcd.engine.hooks.check_input import changed_schedules
from mmcrrcd.engine.launch import prepare_processes
from mmcrrcd.errors import InputError
from mmcrrcd.models import (CRRCD, EKD, SSKD, CRCDLoss, CRDLoss, Distiller, FTLoss, KDLoss, RelationContrastLoss,
                            WCoRDLoss)
from mmcrrcd.registry import MODELS


def draw() -> tuple:
    return random.random(), np.random.rand(), torch.rand(1).item()


def test_an_epoch_draws_the_same_numbers_again_and_every_epoch_others():
    def of(seed, epoch):
        EpochSeedHook().before_train_epoch(SimpleNamespace(seed=seed, epoch=epoch))
        return draw()

    assert of(5, 3) == of(5, 3)
    numbers = [of(seed, epoch) for seed in (5, 6) for epoch in range(3)]
    for each in zip(*numbers):
        assert len(set(each)) == len(numbers)


def test_ranks_draw_other_numbers():
    seed_all(5, 0, 0)
    first = draw()
    seed_all(5, 0, 1)
    assert all(a != b for a, b in zip(first, draw()))


class Draws(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, i):
        return torch.tensor(draw(), dtype=torch.float64)


def test_workers_draw_other_numbers_in_every_worker_and_epoch_and_the_same_again():
    loader = DataLoader(Draws(), batch_size=2, num_workers=2, worker_init_fn=seed_worker)

    def epoch(number):
        seed_all(5, number, 0)
        return torch.cat(list(loader))

    first, second = epoch(0), epoch(1)
    assert torch.equal(first, epoch(0))
    assert len(torch.cat([first, second]).unique()) == 2 * 4 * 3


def runner_at(tmp_path, weight: float = 0.0, loss: float | None = None):
    model = nn.Linear(2, 1)
    model.bias.data.fill_(weight)
    scalars = {} if loss is None else {'train/loss': HistoryBuffer([loss], [1])}
    return SimpleNamespace(iter=9, epoch=0, model=model, work_dir=str(tmp_path),
                           message_hub=SimpleNamespace(log_scalars=scalars, get_info=lambda key, default: default))


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_lost_loss_or_weight_stops_the_run_and_names_the_place_and_what_is_kept(tmp_path, value):
    hook = FiniteHook()
    with pytest.raises(FloatingPointError, match=r'the loss is (nan|inf) at iteration 10 \(epoch 1\); there is no checkpoint'):
        hook.after_train_iter(runner_at(tmp_path, loss=value), 9)
    torch.save({}, tmp_path / 'epoch_1.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))
    with pytest.raises(FloatingPointError, match=r'bias is not finite after iteration 9 .* good checkpoint is .*epoch_1.pth'):
        hook.after_train_epoch(runner_at(tmp_path, value))


def test_a_sound_run_goes_on(tmp_path):
    FiniteHook().after_train_iter(runner_at(tmp_path), 0)
    FiniteHook().after_train_iter(runner_at(tmp_path, loss=1.0), 9)
    FiniteHook().after_train_epoch(runner_at(tmp_path))


def test_only_plain_values_stay_in_a_checkpoint():
    kept = dict(epoch=3, best_score=np.float32(50), loss=torch.tensor(1.0), keep_ckpt_ids=[2, 3], last_ckpt='a.pth', done=True)
    checkpoint = dict(message_hub=dict(log_scalars=dict(loss=object()), resumed_keys={},
                                       runtime_info=dict(copy.copy(kept), cfg=dict(a=1), meta=object(), odd=[object()])))
    PlainCheckpointHook().before_save_checkpoint(None, checkpoint)
    assert checkpoint['message_hub'] == dict(log_scalars={}, resumed_keys={}, runtime_info=kept)
    assert type(checkpoint['message_hub']['runtime_info']['best_score']) is float


@pytest.mark.parametrize('epoch, positive, warned', [(0, 0.5, False), (1, 0.5, True), (1, 0.9, False)])
def test_a_constant_critic_is_reported_once_the_queue_had_time_to_fill(epoch, positive, warned):
    said, scalars = [], {f'train/mine_score_{kind}': HistoryBuffer() for kind in ('positive', 'negative')}
    for kind, value in (('positive', positive), ('negative', 0.495)):
        scalars[f'train/mine_score_{kind}'].update(value)
    runner = SimpleNamespace(epoch=epoch, message_hub=SimpleNamespace(log_scalars=scalars),
                             logger=SimpleNamespace(warning=said.append))
    CriticWatchHook().after_train_epoch(runner)
    assert [('positives score 0.500, negatives 0.495' in line) for line in said] == ([True] if warned else [])


def test_a_schedule_over_epochs_needs_training_by_epochs():
    with pytest.raises(InputError, match='the weight of rcd is a schedule over epochs'):
        CheckInputHook().before_train(a_run(1.0, dict(kd=1.0, rcd=[(0, 0), (5, 1)]), loop=object()))
    with pytest.raises(InputError, match='the weight of the classification loss is a schedule over epochs'):
        CheckInputHook().before_train(a_run([(0, 0), (5, 1)], dict(kd=1.0), loop=object()))
    with pytest.raises(InputError, match='ft has a schedule over epochs'):           # a stage of its own, of 30 epochs
        CheckInputHook().before_train(a_run(1.0, dict(ft=200.0), loop=object(), losses=dict(ft=FTLoss())))


class Epochs(EpochBasedTrainLoop):
    def __init__(self, epochs):
        self._max_epochs = epochs


class Bare(Distiller):
    """What the hook asks of a distiller; something else is learned where the weights leave a gap."""

    def __init__(self, gap_filled: bool = True, **parts):
        nn.Module.__init__(self)
        self.__dict__.update(dict(data_preprocessor=None) | parts, gap_filled=gap_filled)

    def trains_in(self, epoch: int) -> bool:
        return self.gap_filled or super().trains_in(epoch)


def a_run(cls_weight, weights: dict, epochs: int = 1, losses: dict | None = None, loop=None) -> SimpleNamespace:
    model = Bare(student=SimpleNamespace(head=None), cls_weight=cls_weight, weights=weights, losses=losses or {})
    loader = SimpleNamespace(dataset=[], batch_size=4, num_workers=0)
    return SimpleNamespace(model=model, train_loop=loop or Epochs(epochs), train_dataloader=loader)


FT = dict(weights=dict(ft=[(0, 1), (30, 1), (30, 200)]), losses=dict(ft=FTLoss(paraphraser_epochs=30)))


@pytest.mark.parametrize('cls_weight, settings, begins', [
    ([(0, 0), (30, 0), (30, 1)], dict(weights={}), 30),
    ([(0, 0), (20, 1)], dict(weights={}), 1),
    ([(0, 0), (60, 0), (60, 1)], dict(weights=dict(kd=[(0, 0), (40, 0), (40, 1)])), 40),
    ([(0, 0), (29.5, 0), (29.5, 1)], dict(weights={}), 30),
    ([(0, 0), (60, 0), (60, 1)], FT, 30),                # its first 30 epochs are the paraphraser's
])
def test_a_run_that_ends_before_the_student_learns_is_refused(cls_weight, settings, begins):
    CheckInputHook().before_train(a_run(cls_weight, epochs=begins + 1, **settings))
    with pytest.raises(InputError, match=rf'^no loss trains the student in {begins} epochs: .* begins in epoch {begins + 1};'):
        CheckInputHook().before_train(a_run(cls_weight, epochs=begins, **settings))


@pytest.mark.parametrize('weight', [
    200.0, [(0, 1), (9, 1), (9, 200)], [(0, 0), (30, 0), (30, 200)], [(0, 1), (30, 200)], [(30, 200)], [(0, 1), (30, 1)]])
def test_one_weight_for_two_stages_is_refused(weight):
    with pytest.raises(InputError, match=r'^ft trains parts of its own for 30 epochs, then the student: its weight is [^\n]*$'):
        CheckInputHook().before_train(a_run(1.0, dict(ft=weight), epochs=100, losses=FT['losses']))
    for step in (29.5, 30):
        weight = [(0, 1), (step, 1), (step, 200)]
        CheckInputHook().before_train(a_run(1.0, dict(ft=weight), epochs=100, losses=FT['losses']))


@pytest.mark.parametrize('cls_weight', [0, [(0, 0), (9, 0)]])
def test_a_run_whose_weights_are_all_zero_is_refused(cls_weight):
    with pytest.raises(InputError, match=r'^no loss ever trains the student: .*\(the classification loss, kd\)$'):
        CheckInputHook().before_train(a_run(cls_weight, dict(kd=0), epochs=100))
    CheckInputHook().before_train(a_run(cls_weight, dict(kd=0.1), epochs=1))


@pytest.mark.parametrize('cls_weight, kd, epochs, gap', [
    ([(0, 1), (2, 1), (2, 0)], [(0, 0), (4, 0), (4, 1)], 6, 3),         # in the middle
    ([(0, 1), (2, 1), (2, 0)], 0, 9, 3),                                # at the end
    ([(0, 0), (3, 0), (3, 1)], 0, 9, 1),                                # in the beginning
    ([(0, 1), (2, 1), (2, 0)], [(0, 0), (2, 0), (2, 1)], 9, None), ([(0, 0), (20, 1)], [(0, 1), (20, 0)], 99, None),
    ([(0, 1), (2, 1), (2, 0)], 0, 2, None), (1.0, [(0, 1), (5, 0)], 9, None)])
def test_a_schedule_with_a_gap_is_refused(cls_weight, kd, epochs, gap):
    run = a_run(cls_weight, dict(kd=kd), epochs)
    run.model.gap_filled = False
    if gap is None:
        return CheckInputHook().before_train(run)
    with pytest.raises(InputError, match=rf'^no loss has a weight in epoch {gap}: [^\n]*$'):
        CheckInputHook().before_train(run)


def test_the_first_stage_of_sskd_and_the_teacher_of_ekd_are_no_gap():
    sskd = MODELS.build(dict(type=SSKD, student=STUDENT, teacher=TEACHER, input_size=SIZE, head_epochs=2))
    ekd = MODELS.build(dict(type=EKD, student=STUDENT, teacher=TEACHER, input_size=SIZE, cls_weight=[(0, 0), (2, 1)]))
    assert sskd.trains_in(0) and sskd.trains_in(2) and ekd.trains_in(0)


def test_a_plain_classifier_trains_and_starts_from_a_checkpoint_with_the_packages_hooks(tmp_path):
    torch.manual_seed(0)
    model = dict(STUDENT, data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor', mean=MEAN, std=STD))
    loader = pipeline_loader(write_folder(tmp_path / 'images', seed=0), training=True)
    loader['dataset']['pipeline'] = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    changes = dict(train_dataloader=loader, val_dataloader=None, val_evaluator=None, val_cfg=None,
                   custom_hooks=[dict(type='mmcrrcd.CheckInputHook'), dict(type='mmcrrcd.PlainCheckpointHook')])
    train(config(tmp_path / 'first', model, epochs=1, **changes))
    train(config(tmp_path / 'second', model, epochs=1, load_from=str(tmp_path / 'first' / 'epoch_1.pth'), **changes))


@pytest.mark.parametrize('wrap', [lambda x: x, lambda x: dict(type='RepeatDataset', times=2, dataset=x),
                                  lambda x: dict(type='ConcatDataset', datasets=[x, x])])
def test_low_images_that_are_not_packed_are_refused_before_training(tmp_path, wrap):
    def run(keys):
        loader = pipeline_loader(write_folder(tmp_path / 'images', seed=0), training=True)
        loader['dataset']['pipeline'][-1]['algorithm_keys'] = keys
        loader['dataset'] = wrap(loader['dataset'])
        return config(tmp_path / 'run', crrcd(write_teacher(tmp_path / 'teacher.pth'), resolution=None), epochs=1,
                      train_dataloader=loader, val_dataloader=None, val_evaluator=None, val_cfg=None,
                      custom_hooks=[dict(type='mmcrrcd.CheckInputHook')])

    with pytest.raises(InputError, match=r"^train_dataloader: ResolutionPair makes img_low, .*algorithm_keys=[^\n]*$"):
        train(run(()))
    train(run(('img_low', )))


def test_low_images_of_a_validation_that_are_not_packed_are_refused_before_training(tmp_path):
    folder = write_folder(tmp_path / 'images', seed=0)
    loaders = [pipeline_loader(folder, training) for training in (True, False)]
    loaders[1]['dataset']['pipeline'][-1].pop('algorithm_keys')
    with pytest.raises(InputError, match=r'^val_dataloader: ResolutionPair makes img_low'):
        train(config(tmp_path / 'run', crrcd(write_teacher(tmp_path / 'teacher.pth'), resolution=None), epochs=1,
                     train_dataloader=loaders[0], val_dataloader=loaders[1], val_evaluator=dict(type='Accuracy'),
                     custom_hooks=[dict(type='mmcrrcd.CheckInputHook')]))
    assert not list((tmp_path / 'run').glob('*.pth'))


def test_low_images_that_are_not_packed_are_refused_before_a_test():
    pipeline = SimpleNamespace(transforms=[ResolutionPair(8), PackInputs()])
    loader = SimpleNamespace(dataset=SimpleNamespace(pipeline=pipeline))
    for method in ('val', 'test'):
        with pytest.raises(InputError, match=f'^{method}_dataloader: ResolutionPair makes img_low'):
            getattr(CheckInputHook(), f'before_{method}')(SimpleNamespace(**{f'{method}_dataloader': loader}))


@pytest.mark.slow
def test_every_function_of_a_config_is_found_by_its_full_name():
    """In a text config, by an interpreter that has imported nothing of the package."""
    code = ("from mmengine.registry import FUNCTIONS\nfor name in ('seed_worker', 'whole_batch'):\n"
            "    assert FUNCTIONS.get(f'mmcrrcd.{name}').__name__ == name")
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason='on a machine with GPUs every launcher works')
def test_slurm_without_gpus_is_refused():
    with pytest.raises(InputError, match='--launcher slurm needs GPUs'):
        prepare_processes(Config(dict(model={})), 'slurm')


@pytest.mark.skipif(torch.cuda.is_available(), reason='on a machine with GPUs it works')
def test_batch_norm_over_processes_without_gpus_is_refused():
    with pytest.raises(InputError, match="^sync_bn='torch' needs GPUs"):
        prepare_processes(Config(dict(model={}, sync_bn='torch')), 'pytorch')


@pytest.mark.parametrize('model, expected', [
    (dict(alpha=0.5, beta=0.2), False),
    (dict(alpha=0.5, beta=[(0, 1), (9, 0)]), True),
    (dict(cls_weight=[(0, 0), (9, 1)]), True), (dict(cls_weight=0), True), (dict(cls_weight=0.1), False),
    (dict(objective=dict(kd=dict(weight=1.0), ab=dict(weight=[(0, 1), (30, 0)]))), True),
    (dict(type=Distiller, objective=None), False),
    (dict(type=SSKD), True), (dict(type='mmcrrcd.SSKD'), True), (dict(type='mmcrrcd.models.SSKD'), True),
    (dict(type='mmcrrcd.EKD'), False), (dict(type='ImageClassifier'), False), (dict(type='no.such.Thing'), False),
    (dict(type=CRRCD, objective=dict(ft=dict(type='mmcrrcd.FTLoss', weight=200))), True),
    (dict(type=CRRCD, objective=dict(at=dict(type='mmcrrcd.ATLoss', weight=1000))), False)])
def test_ddp_looks_for_parameters_without_gradients_where_a_weight_changes_or_a_part_has_stages(model, expected):
    cfg = Config(dict(model=model))
    prepare_processes(cfg, 'none')
    assert cfg.find_unused_parameters is expected


@pytest.mark.parametrize('losses', [
    dict(crd=CRDLoss(num_samples=20, num_negatives=4)), dict(kd=KDLoss(), crcd=CRCDLoss(num_samples=20, num_negatives=4)),
    dict(rcd=RelationContrastLoss(normalizer='none', num_samples=20))])
def test_losses_that_count_on_another_number_of_images_are_refused(losses):
    run = a_run(1.0, {}, losses=losses)
    for images in (range(20), Subset(range(20), [0, 1])):        # the positions of a part are those in the whole
        run.train_dataloader.dataset = images
        CheckInputHook().before_train(run)
    run.train_dataloader.dataset = range(19)
    with pytest.raises(InputError, match=rf'^{list(losses)[-1]} has num_samples=20, and there are 19 training images$'):
        CheckInputHook().before_train(run)


def test_a_queue_shorter_than_the_batch_is_refused_before_training():
    with pytest.raises(InputError, match='num_negatives=3 samples, fewer than the batch of 4'):
        CheckInputHook().before_train(a_run(1.0, {}, losses=dict(wcord=WCoRDLoss(num_negatives=3))))


@pytest.mark.parametrize('persistent', [True, False])
def test_workers_that_outlive_an_epoch_are_warned_of(persistent):
    said = []
    EpochSeedHook().before_train(SimpleNamespace(
        train_dataloader=DataLoader(Draws(), num_workers=1, persistent_workers=persistent),
        logger=SimpleNamespace(warning=said.append)))
    assert [line.split(':')[0] for line in said] == ['train_dataloader.persistent_workers=True'] * persistent


def test_a_schedule_that_is_not_the_checkpoints():
    def states(steps: int, **settings) -> list[dict]:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)
        schedules = [MultiStepLR(optimizer, **dict(milestones=[2, 4], end=6) | settings), ConstantLR(optimizer, end=3)]
        for schedule in schedules * steps:
            schedule.step()
        return [copy.deepcopy(schedule.state_dict()) for schedule in schedules]

    assert changed_schedules(states(0), states(3)) == []
    assert changed_schedules(states(0, end=9, milestones=[2, 8]), states(3)) == ['milestones [2, 4] there, [2, 8] here',
                                                                                 'end 6 there, 9 here']
