"""The benchmarks on tiny settings: they run, their numbers are plausible, their tables and pictures can be made."""
import json
import math
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

ROOT = Path(__file__).parents[1]
NO_PEERS = dict(rcd=None, crd=None, crcd=None)


@pytest.fixture
def loss_cost(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    import loss_cost
    return loss_cost


def saved(loss_cost, **changes) -> int:
    """Bytes saved for the backward pass, by the loss of a few numbers."""
    torch.manual_seed(0)
    return loss_cost.saved_bytes(loss_cost.build(loss_cost.point(**changes), None).forward)


def test_saved_bytes_are_those_of_the_definition(loss_cost):
    x, weight = torch.randn(10, 20, requires_grad=True), torch.randn(20, 30, requires_grad=True)

    def forward():
        y = (x @ weight).exp()                           # the product itself is not needed, the exponential is
        return (y * y.detach().clone()).sum()            # the copy is, too

    assert loss_cost.saved_bytes(forward) == pytest.approx(2 * 4 * 300, abs=8)

    def recomputed():
        return checkpoint(lambda z: z.exp().exp(), x * 2, use_reentrant=False, preserve_rng_state=False).sum()

    assert loss_cost.saved_bytes(recomputed) == pytest.approx(4 * 200, abs=8)    # the input only


def test_saved_bytes_leave_out_tensors_without_memory(loss_cost):
    compiled = torch.compile(torch.nn.Linear(3, 3), backend='aot_eager')
    compiled(torch.ones(2, 3))                           # keeps fake tensors
    x = torch.randn(10, 20, requires_grad=True)
    assert loss_cost.saved_bytes(lambda: x.exp().sum()) == pytest.approx(4 * 200, abs=8)


def test_saved_bytes_grow_with_negatives_and_not_with_pairs(loss_cost):
    by_n = [saved(loss_cost, batch=32, negatives=n) for n in (256, 512, 1024)]
    assert by_n[2] - by_n[1] == pytest.approx(2 * (by_n[1] - by_n[0]), rel=0.01)
    a_line = by_n[1] - by_n[0]                           # 256 more negatives: relations of 8 anchors to each, and their scores
    assert 8 * 256 * 128 * 4 < a_line < 10 * 8 * 256 * (128 + 32) * 4

    # The relations of all pairs to all negatives, each a vector, would be 32 x 32 x 1024 x 128 numbers: 537 MB.
    assert by_n[2] < 0.1 * 32 * 32 * 1024 * 128 * 4
    by_batch = [saved(loss_cost, batch=batch, negatives=256) for batch in (32, 64, 128)]
    assert by_batch[2] / by_batch[0] < 128 / 32


def test_with_all_anchors_little_is_saved_because_parts_are_recomputed(loss_cost):
    by_batch = [saved(loss_cost, batch=batch, negatives=256, anchors=None) for batch in (32, 64, 128)]
    assert by_batch[2] / by_batch[0] < 128 / 32
    assert by_batch[1] < saved(loss_cost, batch=64, negatives=256, anchors=8)


def test_classes_and_images_cost_nothing(loss_cost):
    one = saved(loss_cost, batch=16, negatives=32, classes=10, images=100)
    assert one == saved(loss_cost, batch=16, negatives=32, classes=10_575, images=500_000)


def test_what_a_process_reports(loss_cost):
    case = loss_cost.point(batch=16, negatives=64)
    row = loss_cost.cost(case, None, 3, 1)
    assert len(row['forward']) == len(row['backward']) == 3 and min(row['forward'] + row['backward']) > 0
    assert row['state'] == pytest.approx(64 * (64 * 4 + 8), rel=0.01)            # embeddings and keys of the queue
    banks = loss_cost.cost(loss_cost.CRD | dict(images=1000, negatives=32, batch=8), None, 1, 1)['state']
    assert banks == pytest.approx(1000 * (2 * 128 * 4 + 8), rel=0.01)            # two vectors and a label for each image


def peak_of_two() -> int | None:
    """Of two tensors, one after the other, beside one that was there before."""
    from loss_cost import PeakMemory
    held = torch.ones(5_000_000)                                                 # 20 MB
    peak = PeakMemory()
    for _ in range(2):
        torch.ones(10_000_000)                                                   # 40 MB
    return peak.read() if held.sum() == 5_000_000 else -1


def test_peak_of_a_process(loss_cost):
    """In a process of its own, as the benchmarks measure: other threads of this one may take memory at any time."""
    if torch.cuda.is_available():
        pytest.skip('counts memory of the GPU')
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('spawn')) as pool:
        peak = pool.submit(peak_of_two).result()
    if peak is None:
        pytest.skip('the system does not tell the peak of a process')
    assert 35e6 < peak < 60e6


@pytest.mark.slow
def test_a_killed_process_is_a_row_of_its_own(loss_cost, monkeypatch):
    """Whatever the system does where memory ends; here the process ends itself."""
    monkeypatch.setattr(loss_cost, 'cost', kill)
    result = loss_cost.measure({'classes': [loss_cost.point()]}, NO_PEERS, 1, 1)
    assert 'out of memory' in loss_cost.table(result)
    loss_cost.plot(result)


def kill(*_):
    os._exit(1)


@pytest.mark.slow
def test_loss_cost_in_a_few_points(loss_cost, monkeypatch, tmp_path, capsys):
    tiny = dict(batch=16, negatives=32, images=200)
    for name in ('DEFAULT', 'CRD', 'CRCD'):
        monkeypatch.setattr(loss_cost, name, getattr(loss_cost, name) | tiny)
    monkeypatch.setattr(sys, 'argv', ['loss_cost.py', '--quick', '--repetitions', '2', '--threads', '1',
                                      '--json', str(tmp_path / 'loss_cost.json')])
    loss_cost.main()
    result = json.loads((tmp_path / 'loss_cost.json').read_text())
    rows = {row['loss']: row for row in result['lines']['comparison']}
    assert set(rows) == {'rcd', 'crd', 'crcd'}                                   # the peers are left out
    table = loss_cost.table(result)
    assert table in capsys.readouterr().out
    assert table.count('\n| relational contrast') == 6 and 'all anchors' in table and 'n = 2 repetitions' in table
    assert 'CRCD' not in loss_cost.table(result, 'negatives, 8 anchors')
    assert loss_cost.plot(result).axes


def test_lines_change_one_size_at_a_time(loss_cost):
    for name, points in loss_cost.lines().items():
        axis = name.split(',')[0]
        others = {json.dumps({key: value for key, value in case.items() if key not in (axis, 'batch')}) for case in points}
        assert len(others) == 1, name
        assert all(case['batch'] <= case['negatives'] for case in points)
    assert loss_cost.lines()['images'][-1] == loss_cost.point(classes=10_575, images=500_000)
    published = loss_cost.comparison(dict(crd=Path('peer'), crcd=None))[-1]
    assert published == loss_cost.CRD | dict(loss='crd published')


@pytest.mark.slow
def test_data_time_without_a_peer(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    monkeypatch.chdir(ROOT)
    import data_time
    from test_datasets.test_images import write_cifar100
    generator = torch.Generator().manual_seed(0)
    write_cifar100(tmp_path, torch.randint(256, (10_000, 3072), generator=generator, dtype=torch.uint8).numpy(),
                   [i % 100 for i in range(10_000)])
    (tmp_path / 'cifar-100-python' / 'train').touch()    # mmpretrain wants to see both splits, and reads one
    monkeypatch.setattr(data_time, 'SPLIT', 'test')
    monkeypatch.setattr(sys, 'argv', ['data_time.py', '--rounds', '2', '--batches', '2', '--warmup', '1', '--workers', '0', '1',
                                      '--data-root', str(tmp_path), '--json', str(tmp_path / 'data_time.json')])
    data_time.main()
    result = json.loads((tmp_path / 'data_time.json').read_text())
    assert set(result['rates']) == {'fast, 32 pixels', 'fast, 8 pixels', 'stock, 0 workers', 'stock, 1 workers'}
    for rates in result['rates'].values():
        assert len(rates) == 2 and all(math.isfinite(rate) and rate > 0 for rate in rates)
    assert data_time.table(result) in capsys.readouterr().out


def test_parts_of_a_step(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    import step_parts
    from mmcrrcd.datasets import CIFAR100Arrays
    from test_datasets.test_images import write_cifar100
    rng = np.random.default_rng(0)
    write_cifar100(tmp_path, rng.integers(256, size=(10_000, 3072), dtype=np.uint8), rng.integers(100, size=10_000).tolist())
    monkeypatch.setattr(step_parts.DATASETS, 'build', lambda cfg: CIFAR100Arrays(cfg['data_root'], split='test'))
    monkeypatch.setattr(step_parts, 'BATCH', 8)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, 'argv', ['step_parts.py', '--data-root', str(tmp_path), '--resolution', '8', '--iterations', '2',
                                      '--warmup', '1', '--json', str(tmp_path / 'parts.json')])
    step_parts.main()
    result = json.loads((tmp_path / 'parts.json').read_text())
    for parts in (result['seconds'][precision] for precision in ('float32', 'bfloat16')):
        assert {'teacher', 'student, forward', 'student, backward', 'kd loss', 'rcd loss', 'optimiser'} <= parts.keys()
        assert all(len(values) == 2 and min(values) > 0 for values in parts.values())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('|')]
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines]
    shares = [int(row[2].removesuffix(' %')) for row in rows if row[2].endswith('%')]
    assert len(shares) == 9 and abs(sum(shares) - 100) <= 5


def test_the_peer_is_not_compared_with_another_pair(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    import step_time
    other = 'configs/crrcd/vgg13_vgg8_cifar100.py'
    monkeypatch.setattr(sys, 'argv', ['step_time.py', '--peer', 'somewhere', '--config', other])
    with pytest.raises(SystemExit):
        step_time.main()
    assert '--peer trains resnet56_resnet20_cifar100 at 32 pixels' in capsys.readouterr().err


@pytest.mark.slow
def test_memory_of_a_classifier(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')
    import classifier_memory
    monkeypatch.setattr(sys, 'argv', ['classifier_memory.py', '--classes', '2000', '--batch', '16', '--threads', '1',
                                      '--json', str(tmp_path / 'memory.json')])
    classifier_memory.main()
    result = json.loads((tmp_path / 'memory.json').read_text())
    softmax, arcface = result['rows']
    assert [softmax['weights'], arcface['weights']] == [4 * 2000 * (512 + 1), 4 * 2000 * 512]         # with a bias, and without
    for row in result['rows']:
        assert row['weights'] == row['gradients'] == row['momentum'] and row['logits'] == 4 * 2000 * 16
        assert row['peak'] is None or row['peak'] > 3 * row['weights']
    assert classifier_memory.table(result) in capsys.readouterr().out


def test_the_two_kinds_of_kd_are_rows_of_their_own(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / 'benchmarks')
    import critic_forms
    import results
    from mmengine.config import Config

    forms = 'alone', 'kd', 'kd of the field'
    rows = {form: results.method(critic_forms.DEFAULTS | critic_forms.FORMS[form]) for form in forms}
    assert rows == {'alone': 'student alone', 'kd': 'KD (1 CE + 0.5 KD)', 'kd of the field': 'KD (0.1 CE + 0.9 KD)'}
    model = Config.fromfile(Path(__file__).parents[1] / 'configs' / 'baselines' / 'kd.py').model
    assert critic_forms.FORMS['kd of the field'] == dict(cls_weight=model.cls_weight, alpha=model.objective.kd.weight, beta=0)
    assert results.of_the_paper('resnet56_resnet20_cifar100') == {
        'teacher': 72.34, 'student alone': 69.06, 'KD (0.1 CE + 0.9 KD)': 70.66, 'CRRCD': 72.10}


def test_long_runs_of_figure_3_stand_with_the_main_results(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / 'benchmarks')
    import figure3
    import results

    from mmcrrcd.errors import InputError

    def record(method: str, accuracy: float, seeds: tuple[int, ...], precision: str = 'float32', sha256: str = 'a') -> dict:
        about = dict(hardware='a machine', threads=1, versions={}, command='command', seconds=60)
        return dict(method=method, pair='resnet56_resnet20', resolution=8, epochs=30, batch=96, lr=0.05, precision=precision,
                    config='param_scheduler = dict(milestones=[18, 24, 27])',
                    teacher=dict(accuracy=60.0, epochs=16, sha256=sha256),
                    seeds={str(seed): about | dict(curve=[accuracy + seed] * 30) for seed in seeds})

    def show(*sweeps: list[dict]) -> tuple[str, str, str]:
        monkeypatch.setattr(results, 'of_critic_forms', lambda: iter(()))
        monkeypatch.setattr(figure3, 'all_curves', lambda: [figure3.Curves(f'8px_{i}', each) for i, each in enumerate(sweeps)])
        return results.table(), results.headline(), results.over_kd()

    runs = [record(*each) for each in (('student_alone', 30, (5, 6)), ('kd', 31, (5, 6)), ('default', 32, (5, 6)),
                                       ('alpha_0', 33, (5, )))]
    page, line, over_kd = show(runs)
    assert '| CRRCD | 37.50 ± 0.71 | 37.50 ± 0.71 | 2 | – | – |' in page and 'a teacher of 60.0 %' in page
    assert '| CRRCD without KD | 38.00 | 38.00 | 1 | – | – |' in page
    assert 'The teacher (16 epochs) sees 32 pixels.' in page and 'x0.1 after epochs 18, 24, 27, float32; seeds 5, 6.' in page
    assert '| 35.50 ± 0.71 | 36.50 ± 0.71 | 38.00 (n = 1) | 37.50 ± 0.71 | 60.00 | 30 | 2 |' in line
    half = [each | dict(precision='bfloat16') for each in runs]
    assert show(runs, half)[0].count('| CRRCD | 37.50') == 2                     # another precision is another table
    short = [each | dict(epochs=29) for each in runs]
    assert show(short) == ('No runs yet.', ) * 3
    *seeds, together = (row.split(' | ', 1)[1] for row in over_kd.splitlines()[2:])
    assert seeds == ['5 | +1.00 | +1.00 | 30 of 30 |', '6 | +1.00 | +1.00 | 30 of 30 |']
    assert together == '| **1.00 ± 0.00** | **1.00 ± 0.00** | |'
    runs[2]['seeds']['5']['curve'] = [35.0] * 18 + [38.0] * 11 + [36.5]          # KD has 36
    assert '| 5 | +0.50 | +1.88 | 12 of 30 |' in show(runs)[2]
    with pytest.raises(InputError, match='fig3__8px_0 are of several teachers: move some away'):
        show([*runs[:2], record('default', 32, (5, 6), sha256='b')])


def test_a_point_far_below_is_told_at_the_foot_of_its_panel(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / 'benchmarks')
    import figure3
    sweep = figure3.SWEEPS['forms']
    shown = dict(student_alone=30, kd=32, default=33, batch=32.5, as_printed=2.75)
    second = dict(default=33.5, kd=31.5)
    about = dict(hardware='a machine', threads=1, versions={}, command='command')
    scores = dict(as_printed=dict(means=dict(score_positive=-0.9, score_negative=-0.9)))
    records = [dict(method=name, batch=96, lr=0.05, precision='float32', teacher=None,
                    seeds={'5': about | dict(last=last) | scores.get(name, {})}
                    | ({'6': about | dict(last=second[name])} if name in second else {})) for name, last in shown.items()]
    curves = figure3.Curves('8px__paper_35e_in_5e', records)
    axes = figure3.Figure().subplots()
    curves.draw(sweep, axes)
    assert any(text.get_text().startswith('2.75 ↓') for text in axes.texts) and axes.get_ylim()[0] > 29
    page = curves.markdown()
    assert 'Points more than 10 below the lower baseline' in page
    assert '| Eq. 10, β 2 | 2.75 (n = 1) | -29.25 | -0.90 / -0.90 | – |' in page
    assert '| softmax, centred (default) | 33.25 ± 0.35 (n = 2) | +1.50 ± 0.71 | – | – |' in page
    assert '| KD (1 CE + 0.5 KD) | 31.75 ± 0.35 (n = 2) | – | – | – |' in page


def test_steps_as_graphs(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    import step_graphs
    kept = json.loads((ROOT / 'benchmarks/results/step_graphs.json').read_text())
    rows = step_graphs.table(kept).splitlines()[2:2 + len(kept['rows'])]
    for row, line in zip(kept['rows'], rows, strict=True):
        assert float(line.split('|')[-2]) == pytest.approx(row['kernels']['ms'] / row['graph']['ms'], abs=0.051)
        assert row['graph']['loss'] == pytest.approx(row['kernels']['loss'], rel=1e-3)
    kept['rows'][0]['graph']['why_not'] = ['it waits']
    assert step_graphs.table(kept).count('waits, not captured') == 1
    monkeypatch.setattr(sys, 'argv', ['step_graphs.py', '--methods', 'kd', '--json', str(tmp_path / 'graphs.json')])
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit, match='CUDA graphs need a GPU'):
        step_graphs.main()


def test_points_over_the_student_alone(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))
    import reproduced
    monkeypatch.setattr(reproduced, 'RESULTS', tmp_path)
    assert reproduced.over_alone('table1', ('resnet56', 'resnet20')) == 'No runs yet.'
    for recipe, runs in (('paper_35e_in_10e', dict(student=50, kd=52, at=51, dkd=50)),
                         ('8px__paper_35e', dict(student=30, at=34))):
        for method, accuracy in runs.items():
            pair = reproduced.pair_name(method, ('resnet56', 'resnet20'))
            record = dict(method=method, pair=pair, seeds={'5': dict(last=accuracy, best=accuracy + 1),
                                                           '6': dict(last=accuracy + 0.5, best=accuracy + 1)})
            (tmp_path / 'table1').mkdir(exist_ok=True)
            (tmp_path / 'table1' / f'{method}__{pair}__{recipe}.json').write_text(json.dumps(record))
    head, _, *rows = reproduced.over_alone('table1', ('resnet56', 'resnet20')).splitlines()
    assert '32 pixels' in head.split('|')[2] and '8 pixels' in head.split('|')[3]
    assert rows == ['| student alone | 50.25 | 30.25 |', '| AT | +1.00 | +4.00 |', '| KD | +2.00 | – |', '| DKD | +0.75 | – |']
