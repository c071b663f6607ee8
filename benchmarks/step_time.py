"""Images per second of a whole training, beside the bare networks and beside RepDistiller.

    PYTHONPATH=../RepDistiller python -m benchmarks.step_time --reference

Everything takes turns in one run, several rounds of some iterations each, so that a machine's moods fall on all alike:

- ``memory`` and ``mmpretrain``: the Runner of a config with its data path, hooks and log, for each of ``--methods``;
- ``cached``: the same as ``memory``, with the teacher's answers read from a cache;
- ``bare``: on one fixed batch the teacher's forward pass and the student's step with cross-entropy, or the latter alone: the
  floors; with ``--variants`` also what the choices in the student's own step are worth;
- ``reference``: RepDistiller's own data loader and loop (``--reference``), in float32 as it is, KD and CRD.

Networks have random weights, and caches hold random answers; times do not depend on them.
"""
import argparse
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import Runner
from mmpretrain.datasets import CIFAR100
from torch import nn
from torch.nn import functional as F

from mmcrrcd.engine.build_cache import read_from
from mmcrrcd.engine.launch import keep_memory
from mmcrrcd.errors import InputError
from mmcrrcd.models.backbones.base import Conv3x3
from mmcrrcd.models.networks import extract
from mmcrrcd.models.teachers.cache import BLOCK, CacheWriter, TeacherCache, number_of_blocks
from mmcrrcd.registry import DATASETS, MODELS

from . import reference
from .common import Timed, benchmark, in_turns, page, seconds, sight, turns_rows

BATCH, VIEWS = 96, 16
WORK = Path('work_dirs/step_time')
METHODS = {
    'kd': dict(beta=0),
    'crrcd': dict(),
    'crrcd, no queue': dict(num_negatives=None),
    'crrcd, learned': dict(relation='learned', num_anchors=8),
    'crd': dict(beta=0, objective=dict(crd=dict(type='mmcrrcd.CRDLoss', num_samples=50_000, weight=0.8))),
}

VARIANTS = {
    'convolutions of one pixel as convolutions': dict(convolution=nn.Conv2d.forward),
    'SGD in one kernel': dict(fused=True),
    'contiguous memory': dict(layout=torch.contiguous_format),
    'bfloat16': dict(bfloat16=True),
    'backbone compiled': dict(compiled=True),
}


@DATASETS.register_module()
class AnyCIFAR100(CIFAR100):
    """mmpretrain's, without a comparison of checksums."""

    train_list, test_list = [['train', None]], [['test', None]]


def config_of(args: argparse.Namespace, path: str, method: str) -> Config:
    """The config with ``method``, on a data path, without checkpoints and validation."""
    cfg = Config.fromfile(args.config)
    cfg.model.update(METHODS[method])
    cfg.model.teacher_checkpoint = None
    cfg.model.data_preprocessor.update(resolution=args.resolution)
    if path == 'mmpretrain':
        pipeline = Config.fromfile('configs/_base_/datasets/cifar100_mmpretrain.py')
        cfg.train_dataloader = pipeline.train_dataloader
        cfg.train_dataloader.dataset.type = 'mmcrrcd.AnyCIFAR100'
    cfg.train_dataloader.batch_size = BATCH
    cfg.train_dataloader.dataset.data_root, cfg.train_cfg.max_epochs = args.data_root, 1
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = cfg.test_dataloader = cfg.test_evaluator = cfg.test_cfg = None
    if not args.float32:
        cfg.optim_wrapper.type = 'mmcrrcd.BF16OptimWrapper'
    cfg.work_dir, cfg.experiment_name, cfg.log_level = str(WORK), uuid.uuid4().hex, 'ERROR'
    cfg.default_hooks.checkpoint = None
    return cfg


def write_answers(folder: Path, model: dict) -> None:
    """A cache of random answers to ``VIEWS`` views of all training images, of the widths of the model's teacher."""
    teacher = MODELS.build(model).forward_teacher(torch.zeros(2, 3, 32, 32))
    shape = dict(views=VIEWS, images=50_000, image_size=[32, 32], embedding=teacher.embedding.shape[1],
                 logits=teacher.logits.shape[1])
    writer = CacheWriter(folder, dict(views=VIEWS, seed=0), shape)
    writer.prepare()
    writer.open()
    answers = teacher._replace(embedding=torch.rand(BLOCK, shape['embedding']), logits=torch.randn(BLOCK, shape['logits']))
    for block in range(number_of_blocks(shape)):
        writer.write(block, answers)
    writer.close()
    writer.finish()


def of_runner(args: argparse.Namespace, path: str, method: str) -> float:
    """Seconds of ``args.iterations`` iterations of a training."""
    cfg = config_of(args, path, method)
    if path == 'cached':
        folder = WORK / f'answers_{Path(args.config).stem}'
        if not folder.exists():
            write_answers(folder, cfg.model)
        read_from(cfg, TeacherCache(folder))
    runner = Runner.from_cfg(cfg)
    runner.train_loop.dataloader = timed = Timed(runner.train_dataloader, args.warmup, args.iterations)
    runner.train()
    return timed.seconds


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


def bare(args: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """Steps on one batch that run only the two networks, or the student, or with ``--variants`` it with one thing changed."""
    cfg, precision = config_of(args, 'memory', 'kd').model, dict(bfloat16=not args.float32)
    student = partial(step_of, cfg.student, BATCH, args.resolution or 32)
    steps = {'bare student': student(**precision)}
    if args.variants:
        steps |= {f'bare student, {name}': student(**precision | change) for name, change in VARIANTS.items()}
    model = MODELS.build(cfg).to(get_device())
    model.load_teacher()
    images = torch.randn(BATCH, 3, 32, 32, device=get_device()).to(memory_format=torch.channels_last)

    def both() -> None:
        with torch.autocast(get_device(), torch.bfloat16, enabled=not args.float32):
            model.forward_teacher(images)
        steps['bare student']()

    return {'bare networks': both} | steps


def measure(args: argparse.Namespace) -> dict:
    keep_memory()                                        # as the tools do
    if args.reference and (args.config, args.resolution) != (reference.CONFIG, None):
        raise InputError(f'--reference trains {reference.CONFIG} at 32×32 px: leave --config and --resolution away')
    turns = {f'{path} {method}': partial(of_runner, args, path, method) for path in args.paths for method in args.methods}
    turns |= {name: partial(seconds, step, args.iterations, args.warmup) for name, step in bare(args).items()}
    if args.reference:
        turns |= {f'reference {method}': partial(
            reference.Reference(method, args.data_root, BATCH, args.workers).seconds, args.warmup, args.iterations)
            for method in reference.METHODS}
    rates = {name: [BATCH * args.iterations / each for each in times] for name, times in in_turns(turns, args.rounds).items()}
    return dict(config=args.config, resolution=args.resolution, batch=BATCH, iterations=args.iterations,
                workers=args.workers, precision='float32' if args.float32 else 'bfloat16', rates=rates)


def table(result: dict) -> str:
    """Markdown: images per second, and how often the reference's and how much of the bare networks' this is."""
    rates = result['rates']
    live = {name: name.replace('cached', 'memory') for name in rates if name.startswith('cached')}
    others = ({'the live teacher': live} if live else {}) | {
        'the bare networks': dict.fromkeys(rates, 'bare networks'),
        'the bare student': dict.fromkeys(rates, 'bare student')}
    others |= {f'RepDistiller, {method.upper()}': dict.fromkeys(rates, f'reference {method}') for method in reference.METHODS
               if f'reference {method}' in rates}
    return page(result, ['', 'images/s: median (range)', *(f'over {other}' for other in others)],
                turns_rows(rates, 0, *others.values()), f'{sight(result)}, {result["precision"]}; '
                f'n = {len(rates["bare student"])} rounds of {result["iterations"]} iterations'
                + (f'; the reference in float32, with {result["workers"]} workers.' if 'reference kd' in rates else '.'))


main = benchmark('step_time', __doc__, measure, table, methods=(list(METHODS), 'that are trained'),
                 paths=(['memory', 'cached', 'mmpretrain'], 'of the data, or none'),
                 config=(reference.CONFIG, 'whose networks are trained'), resolution=(None, 'of the student (default: all 32)'),
                 rounds=(3, 'turns of each'), iterations=(20, 'in a turn'),
                 warmup=(6, 'iterations before the clock runs; the queue takes six to fill'),
                 variants=(False, 'of the bare student, too'), float32=(False, 'this package in float32, too'),
                 reference=(False, 'HobbitLong/RepDistiller, whose checkout is on PYTHONPATH'),
                 workers=(2, "processes of the reference's data loader"))

if __name__ == '__main__':
    main()
