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

from .common import carry_out, now, page, parser_of, sight, with_range
from .step_time import BATCH, config_of


def timed(function: Callable, found: list[float]) -> Callable:
    """``function``, whose seconds go to ``found`` at every call."""
    def call(*args, **kwargs):
        start = now()
        result = function(*args, **kwargs)
        found.append(now() - start)
        return result
    return call


def step_of(args: argparse.Namespace, amp: bool) -> tuple[Callable[[], dict], dict[str, list[float]]]:
    """A training step, and the seconds of its parts by their names."""
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
                seconds={precision: {name: values[args.warmup:] for name, values in found.items()}
                         for precision, (_, found) in both.items()})


def table(result: dict) -> str:
    """Markdown: milliseconds of each part in both precisions, and its share of their sum."""
    times = {precision: {name: [1000 * value for value in values] for name, values in parts.items()}
             for precision, parts in result['seconds'].items()}
    sums = {precision: sum(map(median, parts.values())) for precision, parts in times.items()}
    head = ['part of a step', *(title for each in times for title in (f'{each}, ms: median (range)', 'share'))]
    rows = [[name, *(text for each, parts in times.items() for text in
                     (with_range(parts[name], 1), f'{100 * median(parts[name]) / sums[each]:.0f} %'))]
            for name in next(iter(times.values()))]
    rows.append(['sum of the medians', *(text for each in times for text in (f'{sums[each]:.0f}', ''))])
    return page(result, head, rows, f'{sight(result)}; n = {result["iterations"]}.')


def main(argv: list[str] | None = None) -> None:
    parser = parser_of(__doc__, 'step_parts', 'resnet56_resnet20_cifar100',
                       resolution=(None, 'of the student (default: all 32)'), iterations=(20, 'steps'),
                       warmup=(8, 'steps that do not count; the queue takes six to fill'))
    carry_out(parser.parse_args(argv), measure, table)


if __name__ == '__main__':
    main()
