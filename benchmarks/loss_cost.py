"""Time and memory of the relational contrastive loss along each of its sizes, of CRD and CRCD, and of large classifiers.

    PYTHONPATH=../RepDistiller:../CRCD python -m benchmarks.loss_cost --reference

Forward and backward pass of the loss alone, on random embeddings of 64 numbers (those of resnet56 and resnet20), each setting
in a process of its own. From batch 96 and 512 negatives one size changes at a time. Told of each:

- time: of both passes, median and range over ``--repetitions`` (three at least, and no more after a minute), after one that
  does not count;
- peak: memory over that before the first pass, of the whole process on a CPU (Linux only), of tensors on a GPU;
- saved: tensors that the forward pass leaves for the backward pass, each memory once, without parameters and inputs;
- state: what is there all the time: the queue, or the banks; of a classifier its weights, to which SGD adds as many numbers.

``--reference``: ``CRDLoss`` of HobbitLong/RepDistiller and ``CRCDLoss`` of Lechatelia/CRCD as published.
Patched from outside: the call of ``AliasMethod.cuda``; nothing else. Their data loaders draw the negatives, this package's
losses do it themselves, so that only here it is part of the time. ``CRCDLoss`` is that of feature relations, in both.
"""
import argparse
import importlib
import types
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from statistics import median

import torch
from matplotlib.figure import Figure
from mmengine.device import get_device
from mmpretrain.models import LinearClsHead
from rich.progress import track
from torch import Tensor, nn

from mmcrrcd.models import ArcFaceMargin, CosineHead, CRCDLoss, CRDLoss, RelationContrastLoss
from mmcrrcd.registry import MODELS
from mmcrrcd.structures import Batch, NetworkOutput
from mmcrrcd.visualization.style import SIZE, styles

from .common import benchmark, mega, now, page, with_range
from .memory import PeakMemory, in_own_process, saved_bytes

DIM = 128
SECONDS = 60
DEFAULT = dict(width=64, batch=96, negatives=512, anchors=None, classes=100, images=50_000)
OF_HEAD = dict(width=512, batch=128)                     # of faces
KINDS = {                                                # what a line is of; in the table and in the picture
    'CRRCD': dict(loss='CRRCD', anchors=16),
    'CRRCD, learned F': dict(loss='CRRCD, learned F', anchors=8),
    'CRRCD, learned F, all anchors': dict(loss='CRRCD, learned F'),
    'CRD': dict(loss='CRD', negatives=16_384),
    'CRCD': dict(loss='CRCD')}
OURS = list(KINDS)[:3]
HEADS = {'softmax': dict(type=LinearClsHead), 'ArcFace': dict(type=CosineHead, margin=dict(type=ArcFaceMargin))}
AXES = {                                                 # values, and the lines over them
    'batch': ((96, 256, 512), OURS),
    'negatives': ((128, 512, 2048, 8192), OURS),
    'anchors': ((1, 8, 32, None), OURS[:2]),
    'images': ((50_000, 500_000), ['CRRCD', 'CRD'])}
OF_HEADS = {'classes': ((10_575, 85_000), list(HEADS))}                  # CASIA-WebFace, cleaned MS-Celeb-1M
QUICK = {'negatives': ((512, 2048), OURS)}               # for a look in a minute


def point(kind: str, **changes) -> dict:
    """The default of a kind with ``changes``. A queue holds a batch at least: fewer negatives come with a smaller batch."""
    case = DEFAULT | (KINDS.get(kind) or OF_HEAD | dict(loss=kind)) | changes
    return case | dict(batch=min(case['batch'], case['negatives']))


def lines(axes: dict[str, tuple]) -> dict[str, list[dict]]:
    """Name of a line -> its points, from small to large."""
    return {f'{axis}: {kind}': [point(kind, **{axis: value}) for value in values]
            for axis, (values, kinds) in axes.items() for kind in kinds}


def comparison(reference: bool) -> list[dict]:
    """The losses side by side; with ``reference`` also as published."""
    return [*map(point, KINDS), *(point(kind, loss=f'{kind}, as published') for kind in ('CRD', 'CRCD') if reference)]


def build(case: dict) -> tuple[nn.Module, Tensor, Callable[[], Tensor]]:
    """The loss of a case, the student's embedding, and what gives the loss of both; random inputs, and the queue is full."""
    device = get_device()
    batch, n, images, anchors = case['batch'], case['negatives'], case['images'], case['anchors']
    widths = case['width'], case['classes']
    student, teacher = (NetworkOutput((), *(torch.randn(batch, width, device=device) for width in widths)) for _ in range(2))
    embedding = student.embedding.requires_grad_()
    samples = Batch(torch.randint(case['classes'], (batch,), device=device), torch.randperm(images, device=device)[:batch])
    if case['loss'] in HEADS:
        head = MODELS.build(HEADS[case['loss']] | dict(num_classes=case['classes'], in_channels=case['width'])).to(device)
        return head, embedding, lambda: head.loss_module(head((embedding,)), samples.labels)
    name, _, published = case['loss'].partition(', as ')
    if published:
        loss = as_published(name, case).to(device)
        index = torch.randint(images, (batch, 1 + n), device=device)
        index[:, 0] = samples.index
        return loss, embedding, lambda: loss(embedding, teacher.embedding, samples.index, index)
    loss = {'CRD': lambda: CRDLoss(images, DIM, n), 'CRCD': lambda: CRCDLoss(images, DIM, n, gradient=False),
            'CRRCD': lambda: RelationContrastLoss('direction', n, num_anchors=anchors),
            'CRRCD, learned F': lambda: RelationContrastLoss('learned', n, num_anchors=anchors, dim=DIM)}[name]()
    loss.build(student, teacher)
    loss.to(device)
    if name.startswith('CRRCD'):
        loss.queue.push(torch.randn(n, case['width'], device=device), torch.randint(case['classes'], (n,), device=device))
    return loss, embedding, lambda: loss(student, teacher, samples)


def as_published(name: str, case: dict) -> nn.Module:
    """``CRDLoss`` of RepDistiller or ``CRCDLoss`` of CRCD, with the constants of their command lines."""
    criterion, memory = (importlib.import_module(f'{name.lower()}.{module}') for module in ('criterion', 'memory'))
    memory.AliasMethod.cuda = lambda self: None          # which draws nothing here
    options = dict(s_dim=case['width'], t_dim=case['width'], feat_dim=DIM, n_data=case['images'], nce_k=case['negatives'],
                   nce_m=0.5, nce_t=0.07 if name == 'CRD' else 0.05, embed_type='linear')
    return getattr(criterion, f'{name}Loss')(types.SimpleNamespace(**options))


def cost(case: dict, repetitions: int, threads: int) -> dict:
    """Measures one case, in this process."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    forward, backward = [], []
    module, embedding, loss_of = build(case)
    nn.Linear(DIM, DIM, device=get_device())(torch.ones(DIM, DIM, device=get_device())).sum().backward()
    peak = PeakMemory()                                   # what the libraries take for themselves is there by now
    while len(forward) <= repetitions and (len(forward) < 4 or sum(forward) + sum(backward) < 1000 * SECONDS):
        for x in (*module.parameters(), embedding):
            x.grad = None
        start = now()
        loss = loss_of()
        middle = now()
        loss.backward()
        forward.append(1000 * (middle - start))
        backward.append(1000 * (now() - middle))
        del loss
    kept = module.parameters() if case['loss'] in HEADS else module.buffers()
    return dict(case, forward=forward[1:], backward=backward[1:], peak=peak.read(), saved=saved_bytes(loss_of),
                state=sum(x.nbytes for x in kept))


def measured(case: dict, args: argparse.Namespace) -> dict:
    """:func:`cost` in a process of its own."""
    try:
        return in_own_process(cost, case, args.repetitions, args.threads)
    except (BrokenProcessPool, torch.cuda.OutOfMemoryError):
        return dict(case, error='out of memory')


def measure(args: argparse.Namespace) -> dict:
    cases = dict(comparison=comparison(args.reference)) | (lines(QUICK) if args.quick else lines(AXES) | lines(OF_HEADS))
    result = dict(repetitions=args.repetitions, lines={
        name: [measured(case, args) for case in track(line, name)] for name, line in cases.items()})
    if not args.quick:
        plot(result).savefig(args.json.with_suffix('.png'), dpi=120)
    return result


def both(row: dict) -> list[float]:
    """Milliseconds of forward and backward pass together."""
    return [a + b for a, b in zip(row['forward'], row['backward'])]


def setting(row: dict) -> str:
    """Sizes of a row: classes and images where they are not the default's."""
    parts = [f'batch {row["batch"]}'] + ([f'{row["negatives"]:,} negatives'] if row['loss'] not in HEADS else [])
    if row['loss'].startswith(('CRRCD', 'CRCD')):
        parts.append('1 anchor' if row['anchors'] == 1 else f'{row["anchors"] or "all"} anchors')
    parts += [f'{row[axis]:,} {axis}' for axis in ('classes', 'images') if row[axis] != DEFAULT[axis]]
    return ', '.join(parts)


def table(result: dict) -> str:
    """Markdown: a row a setting."""
    rows = []
    for name, line in result['lines'].items():
        rows.append([f'**{name}**', *[''] * 6])
        for row in line:
            found = [row['error'], *[''] * 4] if 'error' in row else [
                with_range(both(row), 1), f'{median(row["forward"]):,.1f} / {median(row["backward"]):,.1f}',
                *(mega(row[key]) for key in ('peak', 'saved', 'state'))]
            rows.append([row['loss'], setting(row), *found])
    head = ['', '', 'time, ms: median (range)', 'forward / backward, ms', 'peak, MB', 'saved, MB', 'state, MB']
    return page(result, head, rows, f'Embeddings of 64 numbers, of classifiers 512, relations and projections of {DIM}, '
                f'float32; an MB is a million bytes; n = {result["repetitions"]}, or what a minute allows, at least 3.')


def plot(result: dict) -> Figure:
    """Median time, and memory, along each size: a row for each."""
    figure = Figure(figsize=(9, 2.1 * len(AXES) + 0.6), layout='constrained')
    panels = figure.subplots(len(AXES), 2, sharey='col')
    for line, (axis, (values, kinds)) in zip(panels, AXES.items()):
        for kind in kinds:
            rows = [row for row in result['lines'].get(f'{axis}: {kind}', ()) if 'error' not in row]
            if not rows:
                continue
            x, look = [row[axis] or row['batch'] for row in rows], styles(KINDS)[kind]
            line[0].plot(x, [median(both(row)) for row in rows], marker='o', label=kind, **look)
            line[1].plot(x, [(row['peak'] or 0) / 1e6 for row in rows], marker='o', **look)
            line[1].plot(x, [row['state'] / 1e6 for row in rows], 's', markerfacecolor='white', color=look['color'])
        for panel in line:
            panel.set(xscale='log', yscale='log', xlabel=axis)
            panel.set_xticks([value or DEFAULT['batch'] for value in values],
                             [f'{value:,}' if value else 'all' for value in values])
            panel.tick_params(axis='x', labelsize=SIZE)
            panel.minorticks_off()
            panel.spines[['top', 'right']].set_visible(False)
            panel.grid(alpha=0.3)
    panels[0, 0].set_title('forward and backward pass (ms)', size=10)
    panels[0, 1].set_title('memory (MB); squares: queue or banks', size=10)
    legend = {label: line for panel in panels[:, 0] for line, label in zip(*panel.get_legend_handles_labels())}
    figure.legend(legend.values(), legend, loc='outside lower center', ncols=len(legend), frameon=False)
    return figure


main = benchmark('loss_cost', __doc__, measure, table, repetitions=(10, 'of both passes'),
                 quick=(False, 'a few points only'), reference=(False, 'also as published, see above'))

if __name__ == '__main__':
    main()
