"""Where the time of a training step goes, part by part.

    python -m benchmarks.step_parts

A step of CRRCD on the in-memory pipeline as the Runner makes it, taken apart. Each part is timed by itself and waits for the
device, so on a GPU the parts add up to more than a step. Losses are those of embeddings and logits. Networks have
random weights; times do not depend on them.
"""
import argparse
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper
from rich.progress import track

from mmcrrcd.environment import about_this_run
from mmcrrcd.models.networks import classification_loss, extract
from mmcrrcd.registry import DATASETS, MODELS
from mmcrrcd.visualization.markdown import conditions

from .common import KEPT, keep
from .step_time import BATCH, now

RESULT = KEPT / 'step_parts.json'


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
    return dict(**about_this_run(), config=args.config, resolution=args.resolution, batch=BATCH, iterations=args.iterations,
                seconds={precision: {name: values[args.warmup:] for name, values in steps.seconds.items()}
                         for precision, steps in both.items()})


def table(result: dict) -> str:
    """Markdown: milliseconds of each part in both precisions, and its share of their sum."""
    middle = {precision: {name: 1000 * median(values) for name, values in parts.items()}
              for precision, parts in result['seconds'].items()}
    lines = ['| part of a step | ' + ' | '.join(f'{precision}, ms: median (range) | share' for precision in middle) + ' |',
             '|---' * (1 + 2 * len(middle)) + '|']
    for name in next(iter(middle.values())):
        cells = []
        for precision, parts in middle.items():
            least, most = (1000 * end(result['seconds'][precision][name]) for end in (min, max))
            cells += [f'{parts[name]:.1f} ({least:.1f} – {most:.1f})', f'{100 * parts[name] / sum(parts.values()):.0f} %']
        lines.append(f'| {name} | {" | ".join(cells)} |')
    sums = ' | '.join(f'{sum(parts.values()):.0f} | ' for parts in middle.values())
    return '\n'.join([*lines, f'| sum of the medians | {sums} |', '', f'{Path(result["config"]).stem}, the student sees '
                      f'{result["resolution"] or 32} pixels, batch {result["batch"]}; n = {result["iterations"]}. '
                      f'{conditions(result)}'])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', default='configs/crrcd/resnet56_resnet20_cifar100.py')
    parser.add_argument('--resolution', type=int, help='pixels the student sees (default: all 32)')
    parser.add_argument('--data-root', default='data/cifar100')
    parser.add_argument('--iterations', type=int, default=20)
    parser.add_argument('--warmup', type=int, default=8, help='steps that do not count; the queue takes six to fill')
    parser.add_argument('--threads', type=int)
    parser.add_argument('--json', type=Path, default=RESULT)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    result = measure(args)
    keep(result, args.json, table(result))


if __name__ == '__main__':
    main()
