"""Where the time of a training step goes, part by part.

    python -m benchmarks.step_parts

A step of CRRCD on the in-memory pipeline, its parts timed as they are called. Each waits for the device, so on a GPU the parts
add up to more than a step. Networks have random weights; times do not depend on them.
"""
import argparse
from collections.abc import Callable
from statistics import median

import torch
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper
from rich.progress import track

from mmcrrcd.registry import DATASETS, MODELS

from .common import benchmark, now, page, sight, with_range
from .step_time import BATCH, config_of


def timed(function: Callable, found: list[float]) -> Callable:
    """``function``, whose milliseconds go to ``found`` at every call."""
    def call(*args, **kwargs):
        start = now()
        result = function(*args, **kwargs)
        found.append(1000 * (now() - start))
        return result
    return call


def step_of(args: argparse.Namespace, amp: bool) -> tuple[Callable[[], dict], dict[str, list[float]]]:
    """A training step, and the milliseconds of its parts by their names."""
    cfg = config_of(argparse.Namespace(**vars(args), float32=not amp), 'memory', 'crrcd')
    data, model = DATASETS.build(cfg.train_dataloader.dataset), MODELS.build(cfg.model)
    model.to(get_device()).train()
    model.load_teacher()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    parts = {'crop, flip, downsampling': (model.data_preprocessor, 'forward'), 'teacher': (model, 'forward_teacher'),
             "student's backbone, forward": (model.student.backbone, 'forward'),
             **{f'{name} loss, forward': (loss, 'forward') for name, loss in model.losses.items()},
             'backward': (wrapper, 'backward'), 'optimizer': (wrapper, 'step')}
    found = {name: [] for name in parts}
    for name, (owner, method) in parts.items():
        setattr(owner, method, timed(getattr(owner, method), found[name]))
    return lambda: model.train_step(data.__getitems__(torch.randint(len(data), (BATCH,)).tolist()), wrapper), found


def measure(args: argparse.Namespace) -> dict:
    """Both precisions, step by step in turn."""
    both = dict(float32=step_of(args, amp=False), bfloat16=step_of(args, amp=True))
    for _ in track(range(args.warmup + args.iterations), 'steps'):
        for step, _ in both.values():
            step()
    return dict(config=args.config, resolution=args.resolution, batch=BATCH, iterations=args.iterations,
                milliseconds={precision: {name: values[args.warmup:] for name, values in found.items()}
                         for precision, (_, found) in both.items()})


def table(result: dict) -> str:
    """Markdown: milliseconds of each part in both precisions, and its share of their sum."""
    rows = []
    for precision, parts in result['milliseconds'].items():
        total = sum(map(median, parts.values()))
        rows += [[precision, name, with_range(values, 1), f'{100 * median(values) / total:.0f} %']
                 for name, values in parts.items()]
    return page(result, ['', 'part of a step', 'ms: median (range)', 'share'], rows,
                f'{sight(result)}; n = {result["iterations"]}.')


main = benchmark('step_parts', __doc__, measure, table, iterations=(20, 'steps'),
                 config=('configs/crrcd/resnet56_resnet20_cifar100.py', 'that is trained'),
                 resolution=(None, 'of the student (default: all 32)'),
                 warmup=(8, 'steps that do not count; the queue takes six to fill'))

if __name__ == '__main__':
    main()
