"""Does bfloat16 cost accuracy?

    python benchmarks/precision.py --epochs 4

Trains CRRCD students at 8 pixels on all of CIFAR-100, some seeds in float32 and the same in bfloat16 (``--amp`` of
tools/train.py: networks under autocast, losses, critic and weights in float32). Students of a precision share the teacher's
answers, which are computed in that precision, too; all see the same images. The learning rate drops by 0.1 after 60, 80 and
90 percent of the steps.
"""
import argparse
import contextlib
import time
from pathlib import Path
from statistics import mean, stdev

import torch
from critic_forms import BATCH, LR, Prepared, accuracy
from environment import KEPT, about_this_run, conditions, keep
from mmengine.device import get_device
from mmengine.logging import MessageHub
from rich.progress import track

from mmcrrcd.engine import seed_all
from mmcrrcd.models.networks import look
from mmcrrcd.registry import DATASETS

RESULT = KEPT / 'precision.json'


def autocast(precision: str) -> contextlib.AbstractContextManager:
    return torch.autocast(get_device(), torch.bfloat16, enabled=precision == 'bfloat16')


def measure(args: argparse.Namespace) -> dict:
    setting = Prepared(args.config, args.resolution)
    data = DATASETS.build(setting.train_dataloader.dataset)
    test = DATASETS.build(setting.val_dataloader.dataset).__getitems__(list(range(10_000)))
    models = {(precision, seed): setting.build(seed).train() for precision in ('float32', 'bfloat16') for seed in args.seeds}
    optimisers = {key: torch.optim.SGD(m.parameters(), LR, momentum=0.9, weight_decay=5e-4) for key, m in models.items()}
    preprocessor = next(iter(models.values())).data_preprocessor
    seconds = dict.fromkeys(('float32', 'bfloat16'), 0.0)
    per_epoch = -(-len(data) // BATCH)
    drops = [round(share * args.epochs * per_epoch) for share in (0.6, 0.8, 0.9)]
    MessageHub.get_current_instance().update_info('epoch', 0)
    for epoch in range(args.epochs):
        seed_all(0, epoch)
        for i, index in enumerate(track(torch.randperm(len(data)).split(BATCH), f'epoch {epoch + 1} of {args.epochs}')):
            rate = LR * 0.1 ** sum(epoch * per_epoch + i >= drop for drop in drops)
            batch = preprocessor(data.__getitems__(index), training=True)
            for precision in seconds:
                clock = time.perf_counter()
                with autocast(precision):
                    answer = models[precision, args.seeds[0]].teach(batch['inputs'].high)
                for seed in args.seeds:
                    model, optimiser = models[precision, seed], optimisers[precision, seed]
                    with autocast(precision):
                        student = look(model.student, batch['inputs'].low)
                    parts = model.compare(student, answer, batch['data_samples'])
                    optimiser.param_groups[0]['lr'] = rate
                    optimiser.zero_grad()
                    sum(value for name, value in parts.items() if name.startswith('loss')).backward()
                    optimiser.step()
                seconds[precision] += time.perf_counter() - clock
    tests = {precision: [accuracy(models[precision, seed].eval(), preprocessor, test['inputs'], test['labels'])
                         for seed in args.seeds] for precision in seconds}
    return dict(**about_this_run(), config=args.config, resolution=args.resolution, epochs=args.epochs, batch=BATCH,
                seeds=args.seeds, teacher=setting.about_the_teacher(test['inputs'], test['labels']), tests=tests,
                seconds=seconds)


def table(result: dict) -> str:
    """Markdown: a row a precision."""
    lines = ['| precision | test accuracy, mean ± standard deviation | each seed | seconds |', '|---|---|---|---|']
    for precision, tests in result['tests'].items():
        lines.append(f'| {precision} | {mean(tests):.2f} ± {stdev(tests):.2f} | {", ".join(f"{test:.2f}" for test in tests)} '
                     f'| {result["seconds"][precision]:.0f} |')
    differences = [b - a for a, b in zip(result['tests']['float32'], result['tests']['bfloat16'])]
    return '\n'.join([*lines, '', f'bfloat16 less float32, seed by seed: {", ".join(f"{d:+.2f}" for d in differences)}. '
                      f'{Path(result["config"]).stem} at {result["resolution"] or 32} pixels, {result["epochs"]} epochs, seeds '
                      f'{", ".join(map(str, result["seeds"]))}, tested in float32. {conditions(result)}'])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', default='configs/crrcd/resnet56_resnet20_cifar100.py')
    parser.add_argument('--resolution', type=int, default=8)
    parser.add_argument('--epochs', type=int, default=4)
    parser.add_argument('--seeds', type=int, nargs='+', default=[5, 6, 7])
    parser.add_argument('--threads', type=int)
    parser.add_argument('--json', type=Path, default=RESULT)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    result = measure(args)
    keep(result, args.json, table(result))


if __name__ == '__main__':
    main()
