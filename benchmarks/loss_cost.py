"""Time and memory of the relational contrastive loss: along each of its sizes, and beside CRD and CRCD.

    PYTHONPATH=../RepDistiller:../CRCD python -m benchmarks.loss_cost --reference crd crcd

Forward and backward pass of the loss alone, on random embeddings of 64 numbers (those of resnet56 and resnet20), each setting
in a process of its own. The direction form, the default, has 16 anchors, the learned form 8. From batch 96 and 512 negatives
one size changes at a time; of the learned form also with all anchors. Told of each:

- time: of both passes, median and range over ``--repetitions`` (three at least, and no more after a minute), after one that
  does not count;
- peak: memory over that before the first pass, of the whole process on a CPU (Linux only), of tensors on a GPU;
- saved: tensors that the forward pass leaves for the backward pass, each memory once, without parameters and inputs;
- state: what is there all the time: the queue, or the banks.

``--reference``: ``CRDLoss`` of HobbitLong/RepDistiller and ``CRCDLoss`` of Lechatelia/CRCD as published.
Patched from outside: where there is no GPU, the call of ``AliasMethod.cuda``; nothing else. Their data loaders
draw the negatives, this package's losses do it themselves, so that only here it is part of the time. ``CRCDLoss`` is that of
feature relations, in both. Writes ``benchmarks/results/loss_cost.json`` and prints its tables; the lines as a picture.
"""
import argparse
import contextlib
import ctypes
import gc
import importlib
import io
import json
import multiprocessing
import os
import re
import types
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from mmengine.device import get_device
from rich.progress import track
from torch import Tensor, nn
from torch._subclasses import FakeTensor

from mmcrrcd.models import CRCDLoss, CRDLoss, RelationContrastLoss
from mmcrrcd.structures import Batch, NetworkOutput
from mmcrrcd.visualization.style import styles

from .common import carry_out, now, page, parser_of, with_range

WIDTH, DIM = 64, 128
SECONDS = 60
DEFAULT = dict(loss='rcd', batch=96, negatives=512, anchors=8, classes=100, images=50_000)
CRD, CRCD = DEFAULT | dict(loss='crd', negatives=16_384, anchors=None), DEFAULT | dict(loss='crcd', anchors=None)
AXES = {
    'batch': (64, 96, 128, 256, 512),
    'negatives': (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16_384),
    'anchors': (1, 8, 32, None),
    'classes': (10, 100, 1000, 10_575),
    'images': (50_000, 150_000, 500_000),
}
DIRECTION = dict(loss='direction', anchors=16)
FACES = dict(classes=10_575)                             # the line of images ends at the size of CASIA-WebFace
NAMES = {'rcd': 'relational contrast, learned F', 'direction': 'relational contrast, direction', 'crd': 'CRD', 'crcd': 'CRCD',
         'crd published': 'CRD, as published', 'crcd published': 'CRCD, as published'}
LABELS = ['CRRCD', 'CRRCD, learned F', 'CRRCD, learned F, all anchors', 'CRD']               # in the picture


class Subject(NamedTuple):
    """What is measured: ``forward`` gives the loss; the gradients of ``leaves`` and of ``module`` are forgotten after each."""
    module: nn.Module
    forward: Callable[[], Tensor]
    leaves: list[Tensor]


def point(**changes) -> dict:
    """The default with ``changes``. A queue holds a batch at least: fewer negatives come with a smaller batch."""
    case = DEFAULT | changes
    return case | dict(batch=min(case['batch'], case['negatives']))


def lines() -> dict[str, list[dict]]:
    """Name of a line -> its points, from small to large."""
    found = {}
    for axis in ('batch', 'negatives'):
        found[f'{axis}, direction'] = [point(**DIRECTION | {axis: value}) for value in AXES[axis]]
        for name, anchors in (('8 anchors', 8), ('all anchors', None)):
            found[f'{axis}, {name}'] = [point(anchors=anchors, **{axis: value}) for value in AXES[axis]]
    found['anchors, direction'] = [point(**DIRECTION | dict(anchors=value)) for value in AXES['anchors']]
    found['anchors'] = [point(anchors=value) for value in AXES['anchors']]
    found['classes'] = [point(classes=value) for value in AXES['classes']]
    found['images'] = [point(images=value, **FACES) for value in AXES['images']]
    found['images, CRD'] = [CRD | FACES | dict(images=value) for value in AXES['images']]
    return found


def comparison(references: list[str]) -> list[dict]:
    """The losses side by side; the ``references`` also as published."""
    ours = [point(**DIRECTION), DEFAULT, point(anchors=None), CRD, CRCD]
    return ours + [case | dict(loss=f'{case["loss"]} published') for case in (CRD, CRCD) if case['loss'] in references]


def quick() -> dict[str, list[dict]]:
    """A few points, for a look in a minute."""
    kinds = {'direction': DIRECTION, '8 anchors': dict(anchors=8), 'all anchors': dict(anchors=None)}
    return {f'negatives, {name}': [point(**kind), point(**kind, negatives=2048)] for name, kind in kinds.items()}


def build(case: dict) -> Subject:
    """The loss of a case with random inputs on the device; its queue is full."""
    device = get_device()
    batch, n, images = case['batch'], case['negatives'], case['images']
    student, teacher = (NetworkOutput((), *(torch.randn(batch, width, device=device) for width in (WIDTH, case['classes'])))
                        for _ in range(2))
    student.embedding.requires_grad_()
    samples = Batch(torch.randint(case['classes'], (batch,), device=device), torch.randperm(images, device=device)[:batch])
    if case['loss'].endswith('published'):
        loss = published(case).to(device)
        index = torch.randint(images, (batch, 1 + n), device=device)
        index[:, 0] = samples.index
        return Subject(loss, lambda: loss(student.embedding, teacher.embedding, samples.index, index), [student.embedding])
    loss = {'rcd': lambda: RelationContrastLoss('learned', n, num_anchors=case['anchors'], dim=DIM),
            'direction': lambda: RelationContrastLoss('direction', n, num_anchors=case['anchors']),
            'crd': lambda: CRDLoss(images, DIM, n),
            'crcd': lambda: CRCDLoss(images, DIM, n, gradient=False)}[case['loss']]()
    loss.build(student, teacher)
    loss.to(device)
    if case['loss'] in ('rcd', 'direction'):
        loss.queue.push(torch.randn(n, WIDTH, device=device), torch.randint(case['classes'], (n,), device=device))
    return Subject(loss, lambda: loss(student, teacher, samples), [student.embedding])


def published(case: dict) -> nn.Module:
    """``CRDLoss`` of RepDistiller or ``CRCDLoss`` of CRCD, with the constants of their command lines."""
    name = case['loss'].split()[0]
    criterion, memory = (importlib.import_module(f'{name}.{module}') for module in ('criterion', 'memory'))
    if not torch.cuda.is_available():
        memory.AliasMethod.cuda = lambda self: None
    options = dict(s_dim=WIDTH, t_dim=WIDTH, feat_dim=DIM, n_data=case['images'], nce_k=case['negatives'], nce_m=0.5)
    options |= dict(nce_t=0.07) if name == 'crd' else dict(nce_t=0.05, embed_type='linear')
    return getattr(criterion, f'{name.upper()}Loss')(types.SimpleNamespace(**options))


class PeakMemory:
    """Bytes in use at the most since this was made, over those in use then. None where that cannot be known."""

    def __init__(self):
        self.start = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self.start = torch.cuda.memory_allocated()
            return
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)              # or what is freed already would be used first, for nothing
            Path('/proc/self/clear_refs').write_text('5')                # the peak is the present from here on
            self.start = self.of_process('VmRSS')

    @staticmethod
    def of_process(name: str) -> int:
        return 1024 * int(re.search(rf'{name}:\s*(\d+) kB', Path('/proc/self/status').read_text())[1])

    def read(self) -> int | None:
        if self.start is None:
            return None
        return (torch.cuda.max_memory_allocated() if torch.cuda.is_available() else self.of_process('VmHWM')) - self.start


def memory_of(tensors) -> dict[int, int]:
    """Address -> bytes of the memory of ``tensors``, each once; the fake ones that torch.compile keeps have none."""
    storages = [x.untyped_storage() for x in tensors if not isinstance(x, FakeTensor)]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def saved_bytes(forward: Callable[[], Tensor]) -> int:
    """Bytes of tensors that ``forward`` makes and that are there until the backward pass.

    Autograd says what it saves; recomputed parts (``torch.utils.checkpoint``) hold their inputs without telling it.
    """
    def there() -> dict[int, int]:
        return memory_of(x for x in gc.get_objects() if issubclass(type(x), Tensor))

    def pack(x: Tensor) -> Tensor:
        saved.update(memory_of([x]))
        return x

    gc.collect()
    before, saved = there(), {}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss = forward()
    saved.update(there())
    del loss
    return sum(size for address, size in saved.items() if address not in before)


def cost(case: dict, repetitions: int, threads: int) -> dict:
    """Measures one case, in this process."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    forward, backward = [], []
    with contextlib.redirect_stdout(io.StringIO()):       # the published losses print their constants
        subject = build(case)
        nn.Linear(DIM, DIM, device=get_device())(torch.ones(DIM, DIM, device=get_device())).sum().backward()
        peak = PeakMemory()                               # what the libraries take for themselves is there by now
        for _ in range(1 + repetitions):
            for x in (*subject.module.parameters(), *subject.leaves):
                x.grad = None
            start = now()
            loss = subject.forward()
            middle = now()
            loss.backward()
            forward.append(1000 * (middle - start))
            backward.append(1000 * (now() - middle))
            del loss
            if len(forward) > 3 and sum(forward) + sum(backward) > 1000 * SECONDS:
                break
        most = peak.read()
        return dict(case, forward=forward[1:], backward=backward[1:], peak=most, saved=saved_bytes(subject.forward),
                    state=sum(x.nbytes for x in subject.module.buffers()))


def measure(args: argparse.Namespace) -> dict:
    """Every case once, each in a process of its own, forked from one that has imported everything and computed nothing."""
    os.environ.setdefault('PYTORCH_NVML_BASED_CUDA_CHECK', '1')          # or imports that look for a GPU make forks useless
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['mmcrrcd.models', 'mmpretrain', 'matplotlib.pyplot'])
    cases = dict(comparison=comparison(args.reference)) | (quick() if args.quick else lines())
    different = {json.dumps(case): case for line in cases.values() for case in line}
    done = {}
    for key, case in track(different.items(), 'losses', total=len(different)):
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            try:
                done[key] = pool.submit(cost, case, args.repetitions, args.threads).result()
            except (BrokenProcessPool, torch.cuda.OutOfMemoryError):
                done[key] = dict(case, error='out of memory')
    return dict(repetitions=args.repetitions,
                lines={name: [done[json.dumps(case)] for case in line] for name, line in cases.items()})


def both(row: dict) -> list[float]:
    """Milliseconds of forward and backward pass together."""
    return [a + b for a, b in zip(row['forward'], row['backward'])]


def mega(size: int | None) -> str:
    return '–' if size is None else f'{size / 1e6:,.1f}' if size < 1e8 else f'{size / 1e6:,.0f}'


def setting(row: dict) -> str:
    """Sizes of a row: classes and images where they are not the default's."""
    parts = [f'batch {row["batch"]}, {row["negatives"]:,} negatives']
    if not row['loss'].startswith('crd'):
        parts.append('1 anchor' if row['anchors'] == 1 else f'{row["anchors"] or "all"} anchors')
    parts += [f'{row[axis]:,} {axis}' for axis in ('classes', 'images') if row[axis] != DEFAULT[axis]]
    return ', '.join(parts)


def table(result: dict, *names: str) -> str:
    """Markdown: a row a setting, for the lines called ``names``, or for all."""
    rows = []
    for name in names or result['lines']:
        rows.append([f'**{name}**', *[''] * 6])
        for row in result['lines'][name]:
            found = [row['error'], *[''] * 4] if 'error' in row else [
                with_range(both(row), 1), f'{median(row["forward"]):,.1f} / {median(row["backward"]):,.1f}',
                *(mega(row[key]) for key in ('peak', 'saved', 'state'))]
            rows.append([NAMES[row['loss']], setting(row), *found])
    head = ['', '', 'time, ms: median (range)', 'forward / backward, ms', 'peak, MB', 'saved, MB', 'state, MB']
    return page(result, head, rows, f'Embeddings of {WIDTH} numbers, relations and projections of {DIM}, float32; an MB is a '
                f'million bytes; n = {result["repetitions"]} repetitions, or what a minute allows, at least 3.')


def label_of(line: str) -> str:
    """What a line is called in the picture: the name of its loss, with the anchors where they are not the usual ones."""
    return {'direction': LABELS[0], 'all anchors': LABELS[2], 'CRD': LABELS[3]}.get(line.partition(', ')[2], LABELS[1])


def plot(result: dict) -> Figure:
    """Time, and memory, along each size: a column for each. Squares: what is there all the time, the queue or the banks."""
    sizes = [axis for axis in AXES if any(name.split(',')[0] == axis for name in result['lines'])]
    figure, panels = plt.subplots(2, len(sizes), figsize=(3.2 * len(sizes) + 0.6, 6.5), squeeze=False, layout='constrained',
                                  sharey='row')
    looks, legend = styles(LABELS), {}
    for (above, below), axis in zip(panels.T, sizes):
        for name, rows in result['lines'].items():
            if name.split(',')[0] != axis:
                continue
            rows, label = [row for row in rows if 'error' not in row], label_of(name)
            look, color = looks[label], looks[label]['color']
            x = [row[axis] or row['batch'] for row in rows]
            times = [both(row) for row in rows]
            legend[label], = above.plot(x, [median(time) for time in times], marker='o', markersize=4, label=label, **look)
            above.fill_between(x, [min(time) for time in times], [max(time) for time in times], color=color, alpha=0.2, lw=0)
            if all(row['peak'] is not None for row in rows):
                below.plot(x, [row['peak'] / 1e6 for row in rows], marker='o', markersize=4, **look)
            below.plot(x, [row['state'] / 1e6 for row in rows], marker='s', markersize=4, markerfacecolor='white', color=color,
                       linestyle='none')
        below.set_xlabel(axis + (f', of {FACES["classes"]:,} classes' if axis == 'images' else ''))
        ticks = [x or DEFAULT['batch'] for x in AXES[axis]]
        for panel in (above, below):
            panel.set(xscale='log', yscale='log')
            panel.set_xticks(ticks, [f'{x:,}' for x in ticks], rotation=90, fontsize='small')
            panel.minorticks_off()
            panel.grid(alpha=0.3)
            panel.spines[['top', 'right']].set_visible(False)
    panels[0, 0].set(ylabel='forward and backward pass (ms)')
    panels[1, 0].set(ylabel='memory (MB)')
    squares = Line2D([], [], color='0.4', marker='s', markerfacecolor='white', linestyle='none', label='queue or banks')
    figure.legend(handles=[*(legend[label] for label in LABELS if label in legend), squares], loc='outside lower center',
                  ncols=5, frameon=False)
    figure.suptitle(f'median and range of n = {result["repetitions"]}; {result["hardware"]}', size=10)
    return figure


def main(argv: list[str] | None = None) -> None:
    parser = parser_of(__doc__, 'loss_cost', repetitions=(10, 'of both passes'))
    parser.add_argument('--reference', nargs='+', choices=['crd', 'crcd'], default=[], help='as published; their checkouts, '
                        'HobbitLong/RepDistiller and Lechatelia/CRCD, are on PYTHONPATH')
    parser.add_argument('--quick', action='store_true', help='a few points only')
    args = parser.parse_args(argv)
    result = carry_out(args, measure, table)
    if not args.quick:
        plot(result).savefig(args.json.with_suffix('.png'), dpi=120)


if __name__ == '__main__':
    main()
