"""The hooks of every run, one by one."""
import copy
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from torch.utils.data import DataLoader, Dataset

from mmcrrcd.engine import (CheckInputHook, CriticWatchHook, EpochSeedHook, FiniteHook, PlainCheckpointHook, seed_all,
                            seed_worker)
from mmcrrcd.engine.launch import prepare_processes
from mmcrrcd.errors import InputError


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
                           message_hub=SimpleNamespace(log_scalars=scalars))


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_lost_loss_or_weight_stops_the_run_and_names_the_place_and_what_is_kept(tmp_path, value):
    hook = FiniteHook()
    with pytest.raises(FloatingPointError, match=r'the loss is (nan|inf) at iteration 10 \(epoch 1\); there is no checkpoint'):
        hook.after_train_iter(runner_at(tmp_path, loss=value), 9)
    (tmp_path / 'epoch_1.pth').touch()
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_1.pth'))
    with pytest.raises(FloatingPointError, match=r'bias is not finite at iteration 10 .* good checkpoint is .*epoch_1.pth'):
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
    said, scalars = [], {f'train/score_{kind}': HistoryBuffer() for kind in ('positive', 'negative')}
    for kind, value in (('positive', positive), ('negative', 0.495)):
        scalars[f'train/score_{kind}'].update(value)
    runner = SimpleNamespace(epoch=epoch, message_hub=SimpleNamespace(log_scalars=scalars),
                             logger=SimpleNamespace(warning=said.append))
    CriticWatchHook().after_train_epoch(runner)
    assert [('positives score 0.500, negatives 0.495' in line) for line in said] == ([True] if warned else [])


def test_a_schedule_over_epochs_needs_training_by_epochs():
    model = SimpleNamespace(student=SimpleNamespace(head=None), weights=dict(kd=1.0, rcd=[(0, 0), (5, 1)]), losses={})
    runner = SimpleNamespace(model=model, train_loop=object(), train_dataloader=SimpleNamespace(dataset=[], batch_size=4))
    with pytest.raises(InputError, match='the weight of rcd is a schedule over epochs'):
        CheckInputHook().before_train(runner)


@pytest.mark.skipif(torch.cuda.is_available(), reason='on a machine with GPUs every launcher works')
def test_slurm_without_gpus_is_refused():
    with pytest.raises(InputError, match='--launcher slurm needs GPUs'):
        prepare_processes(Config(dict(model={})), 'slurm')


@pytest.mark.parametrize('model, expected', [
    (dict(alpha=0.5, beta=0.2), False),
    (dict(alpha=0.5, beta=[(0, 1), (9, 0)]), True),
    (dict(cls_weight=[(0, 0), (9, 1)]), True),
    (dict(objective=dict(kd=dict(weight=1.0), ab=dict(weight=[(0, 1), (30, 0)]))), True),
    (dict(objective=None), False)])
def test_ddp_looks_for_parameters_without_gradients_where_a_weight_changes(model, expected):
    cfg = Config(dict(model=model))
    prepare_processes(cfg, 'none')
    assert cfg.find_unused_parameters is expected
