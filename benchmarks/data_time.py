"""Images per second of each way from CIFAR-100's files to batches that a network can take, and nothing else.

    PYTHONPATH=../RepDistiller python -m benchmarks.data_time --reference

Batches of 96 as in training, shuffled, cropped, flipped and normalised:

- ``memory``: ``configs/_base_/datasets/cifar100.py``, all in the preprocessor; and with the student's images at 8×8 px;
- ``mmpretrain``: ``configs/_base_/datasets/cifar100_mmpretrain.py``, mmpretrain's pipeline and then the preprocessor;
- ``reference``: RepDistiller's loader (``--reference``, HobbitLong/RepDistiller) as for KD, and as for CRD with its 16,384
  negatives an image. Patched from outside: torchvision's check of the files and the names of its arrays.

All take turns, several rounds of some batches each. The clock starts after the worker processes have filled their queues, and
on a GPU batches go there in the first two. mmpretrain's check of the files is off, too.
"""
import argparse
from collections.abc import Callable
from functools import partial
from statistics import median

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmcrrcd.registry import MODELS

from .common import carry_out, in_turns, now, page, parser_of, ratio
from .step_time import BATCH, AnyCIFAR100, Reference

SPLIT = 'train'


def ours(path: str, data_root: str, workers: int, resolution: int | None = None) -> Callable:
    """One pass over the batches of a config of this package, as the networks get them."""
    cfg = Config.fromfile(f'configs/_base_/datasets/{path}.py')
    cfg.data_preprocessor.resolution = resolution
    preprocessor = MODELS.build(cfg.data_preprocessor).to(get_device())
    loader_cfg = cfg.train_dataloader
    loader_cfg.update(batch_size=BATCH, num_workers=workers)
    loader_cfg.dataset.update(data_root=data_root, split=SPLIT)
    if path == 'cifar100_mmpretrain':
        loader_cfg.dataset.type = AnyCIFAR100
    loader = Runner.build_dataloader(loader_cfg)
    return lambda: (preprocessor(batch, training=True) for batch in loader)


def rate(batches: Callable, warmup: int, number: int) -> float:
    """Images per second of ``number`` batches, after ``warmup`` others."""
    passing = iter(batches())
    for _ in range(warmup):
        next(passing)
    start = now()
    for _ in range(number):
        next(passing)
    return BATCH * number / (now() - start)


def measure(args: argparse.Namespace) -> dict:
    DefaultScope.get_instance('data_time', scope_name='mmpretrain')
    paths = {'memory, 32 px': ours('cifar100', args.data_root, 0),
             'memory, 8 px': ours('cifar100', args.data_root, 0, resolution=8)}
    for workers in args.workers:
        paths[f'mmpretrain, {workers} workers'] = ours('cifar100_mmpretrain', args.data_root, workers)
    if args.reference:
        reference = Reference(args.data_root)
        for method in ('kd', 'crd'):
            for workers in args.workers:
                _, loader, *_ = reference.build(method, workers)
                paths[f'reference {method}, {workers} workers'] = lambda loader=loader: loader
    turns = {name: partial(rate, batches, args.warmup, args.batches) for name, batches in paths.items()}
    return dict(batch=BATCH, batches=args.batches, rates=in_turns(turns, args.rounds))


def table(result: dict) -> str:
    """Markdown: images per second, and how often those of the best of the reference's loaders for KD."""
    rates = result['rates']
    best = max((name for name in rates if name.startswith('reference kd')), key=lambda name: median(rates[name]), default=None)
    rows = [[name, f'{median(own):,.0f}', f'{min(own):,.0f} – {max(own):,.0f}', ratio(rates, name, best)]
            for name, own in rates.items()]
    return page(result, ['', 'images/s, median', 'range', f'over {best or "the reference"}'], rows,
                f'Batch {result["batch"]}; n = {len(next(iter(rates.values())))} rounds of {result["batches"]} batches.')


def main(argv: list[str] | None = None) -> None:
    parser = parser_of(__doc__, 'data_time', rounds=(7, 'turns of each'), batches=(40, 'in a turn'),
                       warmup=(6, 'batches before the clock runs'))
    parser.add_argument('--reference', action='store_true', help='HobbitLong/RepDistiller, whose checkout is on PYTHONPATH')
    parser.add_argument('--data-root', default='data/cifar100')
    parser.add_argument('--workers', type=int, nargs='+', default=[0, 2], help='worker processes of the paths that have any')
    carry_out(parser.parse_args(argv), measure, table)


if __name__ == '__main__':
    main()
