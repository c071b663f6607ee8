"""Images per second of each way from CIFAR-100's files to batches that a network can take, and nothing else.

    PYTHONPATH=../RepDistiller python -m benchmarks.data_time --reference

Batches of 96 as in training, shuffled, cropped, flipped and normalized:

- ``memory``: ``configs/_base_/datasets/cifar100.py``, all in the preprocessor; and with the student's images at 8×8 px;
- ``mmpretrain``: ``configs/_base_/datasets/cifar100_mmpretrain.py``, mmpretrain's pipeline and then the preprocessor;
- ``reference``: RepDistiller's loader (``--reference``) as for KD, and as for CRD with its 16,384 negatives an image.

All take turns, several rounds of some batches each. The clock starts after the worker processes have filled their queues, and
on a GPU batches go there in the first two. mmpretrain's check of the files is off.
"""
import argparse
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmcrrcd.registry import MODELS

from .common import benchmark, in_turns, page, seconds, turns_rows
from .reference import METHODS, Reference
from .step_time import BATCH, AnyCIFAR100

SPLIT = 'train'


def ours(path: str, data_root: str, workers: int = 0, resolution: int | None = None) -> Callable:
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


def measure(args: argparse.Namespace) -> dict:
    DefaultScope.get_instance('data_time', scope_name='mmpretrain')
    paths = {'memory, 32 px': ours('cifar100', args.data_root), 'memory, 8 px': ours('cifar100', args.data_root, resolution=8)}
    paths |= {f'mmpretrain, {workers} workers': ours('cifar100_mmpretrain', args.data_root, workers)
              for workers in args.workers}
    if args.reference:
        paths |= {f'reference {method}, {workers} workers': Reference(method, args.data_root, BATCH, workers).loader.__iter__
                  for method in METHODS for workers in args.workers}

    def rate(batches: Callable[[], Iterator]) -> float:
        return BATCH * args.batches / seconds(partial(next, iter(batches())), args.batches, args.warmup)

    return dict(batch=BATCH, batches=args.batches, rates=in_turns({name: partial(rate, each) for name, each in paths.items()},
                                                                  args.rounds))


def table(result: dict) -> str:
    """Markdown: images per second, and how often those of the best of the reference's loaders for KD."""
    rates = result['rates']
    best = max((name for name in rates if name.startswith('reference kd')), key=lambda name: median(rates[name]), default=None)
    return page(result, ['', 'images/s: median (range)', f'over {best or "the reference"}'],
                turns_rows(rates, 0, dict.fromkeys(rates, best)),
                f'Batch {result["batch"]}; n = {len(next(iter(rates.values())))} rounds of {result["batches"]} batches.')


main = benchmark('data_time', __doc__, measure, table, rounds=(7, 'turns of each'), batches=(40, 'in a turn'),
                 warmup=(6, 'batches before the clock runs'), workers=([0, 2], 'worker processes of the paths that have any'),
                 reference=(False, 'HobbitLong/RepDistiller, whose checkout is on PYTHONPATH'))

if __name__ == '__main__':
    main()
