"""Steps by CUDA graphs: the same training as without; on a machine without a GPU, what can be seen of it there."""
import gc
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from unittest.mock import MagicMock, call

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import EpochBasedTrainLoop
from torch import nn

from mmcrrcd.engine import graphed
from mmcrrcd.engine.build_cache import use_teacher_cache
from mmcrrcd.engine.graphed import GraphedStep, GraphedTrainLoop, SteadyBatch
from mmcrrcd.errors import InputError
from mmcrrcd.models import Distiller
from mmcrrcd.registry import LOOPS
from mmcrrcd.structures import Batch, NetworkOutput, Pair
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
    use_teacher_cache(cfg)
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
def test_the_training_from_a_cache_is_captured_and_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cache = dict(model=dict(teacher_cache=dict(views=3)))
    (plain, wanted), (other, watch) = (run(tmp_path / name, graphs, **cache) for name, graphs in (('p', False), ('g', True)))
    assert other.model.cache.place(torch.device('cuda')).type == 'cuda' and any(watch.captured)
    torch.testing.assert_close(torch.stack(watch.losses), torch.stack(wanted.losses), rtol=1e-2, atol=1e-2)


def test_a_steady_batch_holds_cached_answers():
    def batch(value: float, side: int = 8):
        output = NetworkOutput((), torch.full((2, 3), value), None, (side, side))
        return dict(data_samples=Batch(torch.zeros(2), torch.arange(2), output))

    steady = SteadyBatch()
    first, second, other = steady(batch(1)), steady(batch(2)), batch(3, side=16)
    assert first is second and first['data_samples'].teacher.embedding.eq(2).all()
    assert steady(other) is other


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
    ('accumulated gradients', dict(optim_wrapper=SimpleNamespace(_accumulative_counts=2, param_groups=[]))),
    ('an optimizer that counts its steps', dict(optim_wrapper=SimpleNamespace(_accumulative_counts=1,
                                                                              param_groups=[dict(capturable=False)]))),
    ('schedules by iterations', dict(param_schedulers=[SimpleNamespace(by_epoch=True), SimpleNamespace(by_epoch=False)])),
])
def test_what_changes_within_an_epoch_is_refused(what, changes):
    fits = dict(model=Distiller.__new__(Distiller),
                optim_wrapper=SimpleNamespace(_accumulative_counts=1, param_groups=[dict(lr=0.1)]),
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
        self.total, self.steps, self.events, self.scale, self.drawn = 0.0, 0, [], 1.0, 0
        owner = self

        class Graph:
            def capture_begin(self, pool, capture_error_mode):
                assert not gc.isenabled()
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
        monkeypatch.setattr(torch.cuda, 'empty_cache', lambda: None)
        monkeypatch.setattr(graphed, 'waits', waits)
        monkeypatch.setattr(graphed, 'numbers_drawn', lambda: self.drawn)
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


def test_streams_wait_for_each_other(monkeypatch):
    """The step for what was launched before it, and what comes after it for the step, captured or not."""
    weight = Weight(monkeypatch)
    main, side = MagicMock(), weight.graphed.stream
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda: main)
    main.attach_mock(side, 'side')
    for launched in range(1, 4):
        weight.steady(torch.tensor(1.0))
        weight.graphed.launch(weight.steady.kept, True)
        before = ['side.wait_stream', 'wait_stream'] * (launched - 1)
        assert [each[0] for each in main.mock_calls] == [*before, 'side.wait_stream']
        weight.graphed.join()
    assert main.mock_calls[-2:] == [call.side.wait_stream(main), call.wait_stream(side)]
    assert gc.isenabled()


def test_a_step_that_cannot_be_captured_says_why(monkeypatch):
    weight = Weight(monkeypatch)
    weight.learn(1.0)

    def step(batch):
        raise RuntimeError('not permitted when stream is capturing')

    weight.graphed.step = step
    with pytest.raises(InputError, match='a step cannot be captured as a CUDA graph: not permitted when stream is capturing'):
        weight.learn(2.0)
    assert gc.isenabled()


def test_a_step_that_draws_numbers_is_known_by_it(monkeypatch):
    weight = Weight(monkeypatch)
    assert weight.learn(1.0, 2.0) and not weight.graphed.draws
    weight.graphed.restart()
    plain = weight.graphed.step
    weight.graphed.step = lambda batch: (setattr(weight, 'drawn', weight.drawn + 4), plain(batch))
    assert weight.learn(1.0, 2.0) and weight.graphed.draws


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
    more = high + 1
    other = dict(inputs=Pair(more, more), data_samples=Batch(torch.tensor([3, 4]), None))
    assert steady(other) is kept
    assert torch.equal(kept['inputs'].high, high + 1) and kept['data_samples'].labels.tolist() == [3, 4]
    assert [kept['inputs'].high.data_ptr(), kept['data_samples'].labels.data_ptr()] == places
    smaller = dict(inputs=Pair(high[:1], high[:1]), data_samples=Batch(torch.tensor([3]), None))
    two = dict(inputs=Pair(high, high + 2), data_samples=Batch(torch.tensor([5, 6]), None))      # where there was one image
    listed = dict(inputs=Pair(high, high), data_samples=['a sample'])
    for batch in (smaller, two, listed):
        assert steady(batch) is batch
    assert torch.equal(kept['inputs'].high, high + 1) and SteadyBatch()(listed) is listed


class Plain:
    """A step that is no graph."""

    def __init__(self, step, ready=True):
        self.step, self.ready, self.draws, self.events = step, ready, False, []

    def restart(self):
        self.events.append('restart')

    def launch(self, batch, steady):
        self.events.append(steady)
        return self.step(batch)

    def join(self):
        self.events.append('join')


@pytest.mark.skipif(torch.cuda.is_available(), reason='on a GPU some kernels add up in an order that varies')
def test_the_loop_with_steps_that_are_no_graphs_is_that_of_mmengine(tmp_path):
    class Loop(GraphedTrainLoop):
        def run(self):
            self.steady, self.step = SteadyBatch(), Plain(self.learn)
            self.step.plain, self.step.why_not, self.step.TRIALS = 1, [], 2
            return EpochBasedTrainLoop.run(self)

    LOOPS.register_module(name='OneByOneLoop', module=Loop, force=True)
    plain, wanted = run(tmp_path / 'plain', False)
    other, watch = run(tmp_path / 'graphed', True, train_cfg=dict(type='mmcrrcd.OneByOneLoop'))
    assert other.train_loop.step.events == ['restart', *[True, 'join'] * 4, False, 'join'] * 4
    assert torch.equal(torch.stack(watch.losses), torch.stack(wanted.losses)) and other.iter == plain.iter == 20
    for name, value in plain.model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], value)
