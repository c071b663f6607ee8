"""What the choices in a student's own step are worth: ``python -m benchmarks.student_step``.

One training step on a fixed batch, with cross-entropy and SGD, as the configs have it, and with one thing changed. All take
turns in one run. Random weights.
"""
import argparse
from collections.abc import Callable
from unittest import mock

import torch
from mmengine.config import Config
from mmengine.device import get_device
from torch import nn
from torch.nn import functional as F

from mmcrrcd.models.backbones.base import Conv3x3
from mmcrrcd.models.networks import extract
from mmcrrcd.registry import MODELS

from .common import carry_out, in_turns, page, parser_of, seconds, sight, turns_rows

VARIANTS = {
    'as it is': {},
    'convolutions of one pixel as convolutions': dict(convolution=nn.Conv2d.forward),
    'SGD in one kernel': dict(fused=True),
    'contiguous memory': dict(layout=torch.contiguous_format),
    'bfloat16': dict(bfloat16=True),
    'backbone compiled': dict(compiled=True),
}


def step_of(config: dict, batch: int, pixels: int, layout=torch.channels_last, fused: bool = False, bfloat16: bool = False,
            compiled: bool = False, convolution: Callable = Conv3x3.forward) -> Callable[[], None]:
    """A training step of a student on one batch."""
    torch.manual_seed(0)
    student = MODELS.build(config).to(get_device(), memory_format=layout).train()
    optimizer = torch.optim.SGD(student.parameters(), 0.05, momentum=0.9, weight_decay=5e-4, fused=fused)
    images = torch.randn(batch, 3, pixels, pixels, device=get_device()).to(memory_format=layout)
    labels = torch.randint(student.head.num_classes, (batch,), device=get_device())
    if compiled:
        student.backbone.compile()

    def step() -> None:
        with mock.patch.object(Conv3x3, 'forward', convolution):
            with torch.autocast(get_device(), torch.bfloat16, enabled=bfloat16):
                logits = extract(student, images).logits
            optimizer.zero_grad()
            F.cross_entropy(logits, labels).backward()
        optimizer.step()

    return step


def measure(args: argparse.Namespace) -> dict:
    student = Config.fromfile(args.config).model.student
    steps = {name: step_of(student, args.batch, args.resolution, **change) for name, change in VARIANTS.items()}
    for step in steps.values():
        seconds(step, 3)                                 # warm up
    times = in_turns({name: lambda step=step: 1000 * seconds(step, args.iterations) / args.iterations
                      for name, step in steps.items()}, args.rounds)
    return dict(config=args.config, batch=args.batch, resolution=args.resolution, milliseconds=times)


def table(result: dict) -> str:
    times = result['milliseconds']
    rows = turns_rows(times, 1, dict.fromkeys(times, 'as it is'))
    return page(result, ["the student's step", 'ms: median (range)', 'over as it is'], rows,
                f'{sight(result)}; n = {len(times["as it is"])} rounds.')


def main(argv: list[str] | None = None) -> None:
    parser = parser_of(__doc__, 'student_step', 'resnet56_vgg8_cifar100', resolution=(8, 'pixels that the student sees'),
                       batch=(96, 'images'), rounds=(15, 'turns of each'), iterations=(4, 'steps in a turn'))
    carry_out(parser.parse_args(argv), measure, table)


if __name__ == '__main__':
    main()
