"""Steps by CUDA graphs: the same training as without; on a machine without a GPU, what can be seen of it there."""
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel
from torch import nn

from mmcrrcd.engine import graphed
from mmcrrcd.engine.graphed import GraphedStep, GraphedTrainLoop, SteadyBatch
from mmcrrcd.errors import InputError
from mmcrrcd.models import Distiller
from mmcrrcd.structures import Batch, Pair
from tiny import config, crrcd, train, write_teacher

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
OBJECTIVE = dict(at=dict(type='mmcrrcd.ATLoss', weight=[(0, 0), (2, 0), (2, 100.0)]), pkt=dict(type='mmcrrcd.PKTLoss'),
                 crd=dict(type='mmcrrcd.CRDLoss', num_samples=24, num_negatives=16))


class Watch(Hook):
    def __init__(self):
        self.losses, self.captured = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(outputs['loss'])
        self.captured.append(getattr(runner.train_loop, 'step', None) is not None and runner.train_loop.step.ready)


class Killed(BaseException):
    pass


class Kill(Hook):
    def before_train_epoch(self, runner):
        if runner.epoch == 2:
            raise Killed


def run(folder, by_graphs: bool, resume: bool = False, hooks=(), **changes):
    folder.mkdir(exist_ok=True)
    cfg = config(folder, crrcd(write_teacher(folder / 'teacher.pth'), num_negatives=6, objective=OBJECTIVE))
    cfg.train_dataloader.batch_size = 5                  # the last batch of an epoch is smaller
    if by_graphs:
        cfg.train_cfg = dict(type='mmcrrcd.GraphedTrainLoop', max_epochs=4)
    cfg.merge_from_dict(changes)
    watch = Watch()
    return train(cfg, watch, *hooks, resume=resume), watch


@gpu
def test_the_training_is_the_same(tmp_path):
    (plain, wanted), (other, watch) = run(tmp_path / 'plain', False), run(tmp_path / 'graphed', True)
    assert watch.captured == [False, False, True, True, True] + [False, True, True, True, True] * 3 and not any(wanted.captured)
    torch.testing.assert_close(torch.stack(watch.losses), torch.stack(wanted.losses), rtol=1e-2, atol=1e-2)
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(other.model.state_dict()[name], value, rtol=2e-2, atol=2e-2)


@gpu
def test_a_resumed_training_ends_like_one_never_stopped(tmp_path):
    whole, _ = run(tmp_path / 'whole', True)
    with pytest.raises(Killed):
        run(tmp_path / 'parts', True, hooks=[Kill()])
    resumed, _ = run(tmp_path / 'parts', True, resume=True)
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(resumed.model.state_dict()[name], value, rtol=1e-3, atol=1e-3)


@gpu
def test_what_waits_is_not_captured():
    weight = torch.zeros((), device='cuda')

    def step(batch):
        weight.add_(batch.sum().item())
        return weight

    steps, steady = GraphedStep(step), SteadyBatch()
    for number in range(1, 6):
        batch = steady(torch.full((2,), float(number), device='cuda'))
        steps.launch(batch, batch is steady.kept)
        steps.join()
    assert weight.item() == 2 * 15 and not steps.ready and 'synchronizing' in steps.why_not[0]


@gpu
def test_numbers_drawn_in_a_graph_are_new_in_each_step():
    drawn = torch.zeros(8, device='cuda')
    steps, steady, seen = GraphedStep(lambda batch: drawn.copy_(torch.rand(8, device='cuda')) + batch), SteadyBatch(), []
    for _ in range(6):
        batch = steady(torch.zeros(8, device='cuda'))
        steps.launch(batch, batch is steady.kept)
        steps.join()
        seen.append(drawn.clone())
    assert steps.ready and len({tuple(numbers.tolist()) for numbers in seen}) == 6


@pytest.mark.skipif(torch.cuda.is_available(), reason='on a machine with a GPU it captures')
def test_on_a_cpu_it_is_the_loop_of_mmengine(tmp_path):
    (plain, wanted), (other, watch) = run(tmp_path / 'plain', False), run(tmp_path / 'graphed', True)
    assert torch.equal(torch.stack(watch.losses), torch.stack(wanted.losses))
    for name, value in plain.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], value)


@pytest.mark.parametrize('what, changes', [
    ('several processes', dict(model=MMDistributedDataParallel.__new__(MMDistributedDataParallel))),
    ('a Linear', dict(model=nn.Linear(1, 1))),
    ('accumulated gradients', dict(optim_wrapper=SimpleNamespace(_accumulative_counts=2))),
    ('schedules by iterations', dict(param_schedulers=[SimpleNamespace(by_epoch=True), SimpleNamespace(by_epoch=False)])),
])
def test_what_changes_within_an_epoch_is_refused(what, changes):
    fits = dict(model=Distiller.__new__(Distiller), optim_wrapper=SimpleNamespace(_accumulative_counts=1),
                param_schedulers=[SimpleNamespace(by_epoch=True)])
    loop = GraphedTrainLoop.__new__(GraphedTrainLoop)
    loop._runner = SimpleNamespace(**fits)
    loop.check()
    loop._runner = SimpleNamespace(**fits | changes)
    with pytest.raises(InputError, match=f'is not for {what}'):
        loop.check()


class Weight:
    """Adds batches up; two graphs of it, faked, hold what was captured. It stands for a GPU."""

    def __init__(self, monkeypatch, waits_in: tuple[int, ...] = ()):
        self.total, self.steps, self.events, self.scale = 0.0, 0, [], 1.0
        owner = self

        class Graph:
            def capture_begin(self, pool, capture_error_mode):
                owner.events.append('capture')
                self.before = owner.total

            def capture_end(self):
                owner.total = self.before                # capturing computes nothing
                self.scale = owner.scale

            def pool(self):
                return self

            def replay(self):
                owner.events.append('replay')
                owner.total += self.scale * float(owner.steady.kept)

        @contextmanager
        def waits():
            found = []
            yield found
            found += ['it waits'] * (owner.steps in waits_in)

        for name, value in (('Stream', MagicMock), ('CUDAGraph', Graph), ('stream', lambda _: nullcontext()),
                            ('current_stream', MagicMock)):
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(graphed, 'waits', waits)
        self.steady, self.graphed = SteadyBatch(), GraphedStep(self.step)

    def step(self, batch):
        self.steps += 1
        self.events.append('step')
        self.total += self.scale * float(batch.sum())

    def learn(self, *batches: float | tuple[float, ...]) -> list[str]:
        """What happened."""
        self.events = []
        for values in batches:
            batch = self.steady(torch.tensor(values))
            self.graphed.launch(batch, batch is self.steady.kept)
            self.graphed.join()
        return self.events


def test_all_steps_but_the_first_are_replayed_till_the_restart(monkeypatch):
    weight = Weight(monkeypatch)
    assert weight.learn(1.0, 2.0, 3.0) == ['step', 'capture', 'step', 'replay', 'replay'] and weight.total == 6
    weight.scale = 10.0                                  # is not seen
    assert weight.learn(4.0, (5.0, 6.0), 7.0) == ['replay', 'step', 'replay'] and weight.total == 6 + 4 + 110 + 7
    weight.graphed.restart()
    weight.total = 0.0
    assert weight.learn(1.0, 2.0, 3.0) == ['step', 'capture', 'step', 'replay', 'replay'] and weight.total == 60


@pytest.mark.parametrize('waits_in, captured', [((1,), True), ((2,), True), ((1, 2), False), ((3,), True)])
def test_a_step_that_waits_twice_is_not_captured(monkeypatch, waits_in, captured):
    weight = Weight(monkeypatch, waits_in)
    events = weight.learn(1.0, 2.0, 3.0, 4.0)
    assert ('replay' in events) == captured and weight.total == 10


def test_a_steady_batch_stays_where_it_is():
    high = torch.rand(2, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    steady = SteadyBatch()
    kept = steady(dict(inputs=Pair(high, high), data_samples=Batch(torch.tensor([1, 2]), None)))
    places = [kept['inputs'].high.data_ptr(), kept['data_samples'].labels.data_ptr()]
    assert kept['inputs'].low is kept['inputs'].high and kept['inputs'].high is not high
    assert kept['inputs'].high.is_contiguous(memory_format=torch.channels_last)
    other = dict(inputs=Pair(high + 1, high + 1), data_samples=Batch(torch.tensor([3, 4]), None))
    assert steady(other) is kept
    assert torch.equal(kept['inputs'].high, high + 1) and kept['data_samples'].labels.tolist() == [3, 4]
    assert [kept['inputs'].high.data_ptr(), kept['data_samples'].labels.data_ptr()] == places
    smaller = dict(inputs=Pair(high[:1], high[:1]), data_samples=Batch(torch.tensor([3]), None))
    assert steady(smaller) is smaller
