"""Where the time of a training step goes, part by part.

    python -m benchmarks.step_parts

A step of CRRCD on the in-memory pipeline as the Runner makes it, taken apart. Each part is timed by itself and waits for the
device, so on a GPU the parts add up to more than a step. Losses are those of embeddings and logits. Networks have
random weights; times do not depend on them.
"""
import argparse
from collections import defaultdict
from contextlib import contextmanager
from statistics import median

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper
from rich.progress import track

from mmcrrcd.models.classification import classification_loss
from mmcrrcd.models.networks import extract
from mmcrrcd.registry import DATASETS, MODELS

from .common import carry_out, now, page, parser_of, sight, with_range
from .step_time import BATCH


class Steps:
    """The steps of a training; ``seconds`` has those of each part, by its name."""

    def __init__(self, args: argparse.Namespace, amp: bool):
        cfg = Config.fromfile(args.config)
        cfg.model.teacher_checkpoint = None
        cfg.model.data_preprocessor.update(resolution=args.resolution)
        cfg.optim_wrapper.type = 'mmcrrcd.BF16OptimWrapper' if amp else 'OptimWrapper'
        self.amp, self.seconds = amp, defaultdict(list)
        self.data = DATASETS.build(cfg.train_dataloader.dataset | dict(data_root=args.data_root))
        self.model = MODELS.build(cfg.model)
        self.model.to(get_device()).train()
        self.model.load_teacher()
        self.wrapper = build_optim_wrapper(self.model, cfg.optim_wrapper)

    @contextmanager
    def part(self, name: str):
        start = now()
        yield
        self.seconds[name].append(now() - start)

    def step(self) -> None:
        model, index = self.model, torch.randint(len(self.data), (BATCH,)).tolist()
        with self.part('data, crop, flip, reduction'):
            seen = model.data_preprocessor(self.data.__getitems__(index), training=True)
        pair, batch = seen['inputs'], seen['data_samples']
        with torch.autocast(get_device(), torch.bfloat16, enabled=self.amp):
            with self.part('teacher'):
                teacher = model.forward_teacher(pair.high)
            with self.part('student, forward'):
                student = extract(model.student, pair.low)
        leaves = [x.detach().float().requires_grad_() for x in (student.embedding, student.logits)]
        seen = student._replace(embedding=leaves[0], logits=leaves[1])
        total = 0
        for name, loss in model.losses.items():
            with self.part(f'{name} loss'):
                total = total + loss(seen, teacher, batch)
        with self.part('classification loss'):
            total = total + classification_loss(model.student, seen, batch.labels)
        self.wrapper.zero_grad()
        with self.part('losses, backward'):
            total.backward()
        with self.part('student, backward'):
            torch.autograd.backward([student.embedding, student.logits], [leaf.grad for leaf in leaves])
        with self.part('optimizer'):
            self.wrapper.step()


def measure(args: argparse.Namespace) -> dict:
    """Both precisions, step by step in turn."""
    both = dict(float32=Steps(args, amp=False), bfloat16=Steps(args, amp=True))
    for _ in track(range(args.warmup + args.iterations), 'steps'):
        for steps in both.values():
            steps.step()
    return dict(config=args.config, resolution=args.resolution, batch=BATCH, iterations=args.iterations,
                seconds={precision: {name: values[args.warmup:] for name, values in steps.seconds.items()}
                         for precision, steps in both.items()})


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
