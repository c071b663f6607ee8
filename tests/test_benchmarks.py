"""The benchmarks on tiny settings: they run, their numbers are plausible, their tables and pictures can be made."""
import json
import math
import multiprocessing
import os
from argparse import Namespace
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from benchmarks import loss_cost
from benchmarks.memory import PeakMemory, in_own_process, saved_bytes
from mmcrrcd.environment import about_this_run

ROOT = Path(__file__).parents[1]


LEARNED = 'CRRCD, learned F'


def saved(**changes) -> int:
    """Bytes saved for the backward pass, by the loss of a few numbers."""
    torch.manual_seed(0)
    return saved_bytes(loss_cost.build(loss_cost.point(LEARNED, **changes))[-1])


def test_saved_bytes_are_those_of_the_definition():
    x, weight = torch.randn(10, 20, requires_grad=True), torch.randn(20, 30, requires_grad=True)

    def forward():
        y = (x @ weight).exp()                           # the product itself is not needed, the exponential is
        return (y * y.detach().clone()).sum()            # the copy is, too

    assert saved_bytes(forward) == pytest.approx(2 * 4 * 300, abs=8)

    def recomputed():
        return checkpoint(lambda z: z.exp().exp(), x * 2, use_reentrant=False, preserve_rng_state=False).sum()

    assert saved_bytes(recomputed) == pytest.approx(4 * 200, abs=8)    # the input only


@pytest.mark.slow
def test_saved_bytes_leave_out_tensors_without_memory():
    compiled = torch.compile(torch.nn.Linear(3, 3), backend='aot_eager')
    compiled(torch.ones(2, 3))                           # keeps fake tensors
    x = torch.randn(10, 20, requires_grad=True)
    assert saved_bytes(lambda: x.exp().sum()) == pytest.approx(4 * 200, abs=8)


@pytest.mark.slow
def test_saved_bytes_grow_with_negatives_and_not_with_pairs():
    by_n = [saved(batch=32, negatives=n) for n in (256, 512, 1024)]
    assert by_n[2] - by_n[1] == pytest.approx(2 * (by_n[1] - by_n[0]), rel=0.01)
    a_line = by_n[1] - by_n[0]                           # 256 more negatives: relations of 8 anchors to each, and their scores
    assert 8 * 256 * 128 * 4 < a_line < 10 * 8 * 256 * (128 + 32) * 4

    # The relations of all pairs to all negatives, each a vector, would be 32 x 32 x 1024 x 128 numbers: 537 MB.
    assert by_n[2] < 0.1 * 32 * 32 * 1024 * 128 * 4
    by_batch = [saved(batch=batch, negatives=256) for batch in (32, 64, 128)]
    assert by_batch[2] / by_batch[0] < 128 / 32


def test_classes_and_images_cost_nothing():
    one = saved(batch=16, negatives=32, classes=10, images=100)
    assert one == saved(batch=16, negatives=32, classes=10_575, images=500_000)


def test_what_a_process_reports():
    case = loss_cost.point(LEARNED, batch=16, negatives=64)
    row = loss_cost.cost(case, 3, 1)
    assert len(row['forward']) == len(row['backward']) == 3 and min(row['forward'] + row['backward']) > 0
    assert row['state'] == pytest.approx(64 * (64 * 4 + 8), rel=0.01)            # embeddings and keys of the queue
    banks = loss_cost.cost(loss_cost.point('CRD', images=1000, negatives=32, batch=8), 1, 1)['state']
    assert banks == pytest.approx(1000 * (2 * 128 * 4 + 8), rel=0.01)            # two vectors and a label for each image


def peak_of_two() -> int | None:
    """Of two tensors, one after the other, beside one that was there before."""
    held = torch.ones(5_000_000)                                                 # 20 MB
    peak = PeakMemory()
    for _ in range(2):
        torch.ones(10_000_000)                                                   # 40 MB
    return peak.read() if held.sum() == 5_000_000 else -1


@pytest.mark.slow
def test_peak_of_a_process():
    """In a process of its own, as the benchmarks measure: other threads of this one may take memory at any time."""
    if torch.cuda.is_available():
        pytest.skip('counts memory of the GPU')
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as pool:
        peak = pool.submit(peak_of_two).result()
    if peak is None:
        pytest.skip('the system does not tell the peak of a process')
    assert 35e6 < peak < 60e6


@pytest.mark.slow
def test_a_killed_process_is_a_row_of_its_own(monkeypatch):
    """Whatever the system does where memory ends; here the process ends itself."""
    monkeypatch.setattr(loss_cost, 'cost', kill)
    monkeypatch.setattr(loss_cost, 'comparison', lambda reference: [])
    monkeypatch.setattr(loss_cost, 'QUICK', {'classes': ((10, ), [LEARNED])})
    result = about_this_run() | loss_cost.measure(Namespace(reference=False, quick=True, repetitions=1, threads=1))
    assert 'out of memory' in loss_cost.table(result)
    loss_cost.plot(result)


def kill(*_):
    os._exit(1)


@pytest.mark.slow
def test_loss_cost_in_a_few_points(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(loss_cost, 'DEFAULT', loss_cost.DEFAULT | dict(batch=16, negatives=32, images=200))
    loss_cost.main(['--quick', '--repetitions', '2', '--threads', '1', '--json', str(tmp_path / 'loss_cost.json')])
    result = json.loads((tmp_path / 'loss_cost.json').read_text())
    rows = {row['loss']: row for row in result['lines']['comparison']}
    assert set(rows) == {'CRRCD', LEARNED, 'CRD', 'CRCD'}                                     # the references are left out
    table = loss_cost.table(result)
    assert table in capsys.readouterr().out
    assert table.count('\n| CRRCD') == 9 and 'all anchors' in table and 'n = 2, or' in table
    assert loss_cost.plot(result).axes


def test_lines_change_one_size_at_a_time():
    lines = loss_cost.lines(loss_cost.AXES)
    for name, points in lines.items():
        axis = name.split(':')[0]
        others = {json.dumps({key: value for key, value in case.items() if key not in (axis, 'batch')}) for case in points}
        assert len(others) == 1, name
        assert all(case['batch'] <= case['negatives'] for case in points)
    assert lines['images: CRRCD'][-1] == loss_cost.point('CRRCD', images=500_000)
    assert loss_cost.comparison(True)[-2] == loss_cost.point('CRD') | dict(loss='CRD, as published')


@pytest.mark.slow
def test_data_time_without_a_reference(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(ROOT)
    from benchmarks import data_time
    from test_datasets.test_images import write_cifar100
    generator = torch.Generator().manual_seed(0)
    write_cifar100(tmp_path, torch.randint(256, (10_000, 3072), generator=generator, dtype=torch.uint8).numpy(),
                   [i % 100 for i in range(10_000)])
    (tmp_path / 'cifar-100-python' / 'train').touch()    # mmpretrain wants to see both splits, and reads one
    monkeypatch.setattr(data_time, 'SPLIT', 'test')
    data_time.main(['--rounds', '2', '--batches', '2', '--warmup', '1', '--workers', '0', '1',
                    '--data-root', str(tmp_path), '--json', str(tmp_path / 'data_time.json')])
    result = json.loads((tmp_path / 'data_time.json').read_text())
    assert set(result['rates']) == {'memory, 32 px', 'memory, 8 px', 'mmpretrain, 0 workers', 'mmpretrain, 1 workers'}
    for rates in result['rates'].values():
        assert len(rates) == 2 and all(math.isfinite(rate) and rate > 0 for rate in rates)
    assert data_time.table(result) in capsys.readouterr().out


def test_parts_of_a_step(monkeypatch, tmp_path, capsys):
    from benchmarks import step_parts
    from mmcrrcd.datasets import CIFAR100Arrays
    from test_datasets.test_images import write_cifar100
    rng = np.random.default_rng(0)
    write_cifar100(tmp_path, rng.integers(256, size=(10_000, 3072), dtype=np.uint8), rng.integers(100, size=10_000).tolist())
    monkeypatch.setattr(step_parts.DATASETS, 'build', lambda cfg: CIFAR100Arrays(cfg['data_root'], split='test'))
    monkeypatch.setattr(step_parts, 'BATCH', 8)
    monkeypatch.chdir(ROOT)
    step_parts.main(['--data-root', str(tmp_path), '--resolution', '8', '--iterations', '2',
                     '--warmup', '1', '--json', str(tmp_path / 'parts.json')])
    result = json.loads((tmp_path / 'parts.json').read_text())
    for parts in (result['milliseconds'][precision] for precision in ('float32', 'bfloat16')):
        assert {'teacher', 'kd loss, forward', 'rcd loss, forward', 'backward', 'optimizer'} <= parts.keys()
        assert all(len(values) == 2 and min(values) > 0 for values in parts.values())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('|')]
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines]
    shares = [int(row[3].removesuffix(' %')) for row in rows if row[0] == 'float32']
    assert len(shares) == 7 and abs(sum(shares) - 100) <= 5


def test_the_reference_is_not_compared_with_another_pair():
    from benchmarks import step_time
    other = 'configs/crrcd/vgg13_vgg8_cifar100.py'
    with pytest.raises(SystemExit, match='--reference trains configs/crrcd/resnet56_resnet20_cifar100.py at 32×32 px'):
        step_time.main(['--reference', '--config', other])


@pytest.mark.slow
@pytest.mark.parametrize('loss, weights', [('softmax', 2000 * (512 + 1)), ('ArcFace', 2000 * 512)])   # with a bias, and without
def test_memory_of_a_classifier(loss, weights):
    row = in_own_process(loss_cost.cost, loss_cost.point(loss, classes=2000, batch=16), 3, 1)
    assert row['state'] == 4 * weights and (row['peak'] is None or row['peak'] > row['state'])
