"""Images per second of a whole training, beside the bare networks and beside RepDistiller.

    PYTHONPATH=../RepDistiller python -m benchmarks.step_time --reference

Everything takes turns in one run, several rounds of some iterations each, so that a machine's moods fall on all alike:

- ``memory`` and ``mmpretrain``: the Runner of a config with its data path, hooks and log, for each of ``--methods``;
- ``cached``: the same as ``memory``, with the teacher's answers read from a cache;
- ``bare``: on one fixed batch the teacher's forward pass and the student's step with cross-entropy, or the latter alone: the
  floors;
- ``reference``: RepDistiller's own data loader and loop (``--reference``, HobbitLong/RepDistiller), in float32 as it is, KD
  and CRD. Patched from outside, for today's packages: torchvision's check of the files, the names of its arrays, calls of
  ``.cuda()`` where there is none, ``.view`` of a strided tensor.

Networks have random weights, and caches hold random answers; times do not depend on them.
"""
import argparse
import contextlib
import io
import sys
import types
import uuid
from pathlib import Path
from statistics import median
from unittest import mock

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.datasets import CIFAR100
from torch.nn import functional as F

from mmcrrcd.models.networks import extract
from mmcrrcd.models.teachers.cache import CacheWriter, number_of_blocks, rows_of
from mmcrrcd.registry import DATASETS, MODELS

from .common import carry_out, in_turns, now, page, parser_of, ratio

OF_REFERENCE = 'resnet56_resnet20_cifar100'             # the pair that the reference's loop trains here
BATCH, LR, VIEWS = 96, 0.05, 16
WORK = Path('work_dirs/step_time')
PATHS = ['memory', 'cached', 'mmpretrain']
METHODS = {
    'kd': dict(beta=0),
    'crrcd': dict(),
    'crrcd, learned': dict(relation='learned', num_anchors=8),
    'crd': dict(beta=0, objective=dict(crd=dict(type='mmcrrcd.CRDLoss', num_samples=50_000, weight=0.8))),
}


@DATASETS.register_module()
class AnyCIFAR100(CIFAR100):
    """mmpretrain's, without a comparison of checksums."""

    train_list, test_list = [['train', None]], [['test', None]]


class Done(Exception):
    pass


class Clock(Hook):
    """Times ``iterations`` after ``warmup``; waits for the device at both ends only."""

    priority = 'LOWEST'

    def __init__(self, warmup: int, iterations: int):
        self.warmup, self.iterations, self.seconds = warmup, iterations, 0.0

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if batch_idx + 1 == self.warmup:
            self.start = now()
        if batch_idx + 1 == self.warmup + self.iterations:
            self.seconds = now() - self.start
            raise Done


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
    cfg.train_dataloader.dataset.data_root = args.data_root
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = cfg.test_dataloader = cfg.test_evaluator = cfg.test_cfg = None
    if not args.float32:
        cfg.optim_wrapper.type = 'mmcrrcd.BF16OptimWrapper'
    cfg.work_dir, cfg.experiment_name, cfg.log_level = str(WORK), uuid.uuid4().hex, 'ERROR'
    cfg.default_hooks.checkpoint = None
    return cfg


def write_answers(folder: Path, model: dict) -> None:
    """A cache of random answers to ``VIEWS`` views of all training images, of the widths of the model's teacher."""
    if folder.exists():
        return
    teacher = MODELS.build(model).forward_teacher(torch.zeros(2, 3, 32, 32))
    shape = dict(views=VIEWS, images=50_000, image_size=[32, 32], embedding=teacher.embedding.shape[1],
                 logits=teacher.logits.shape[1])
    writer = CacheWriter(folder, dict(views=VIEWS, seed=0), shape)
    writer.prepare()
    writer.open()
    for block in range(number_of_blocks(shape)):
        _, first, end = rows_of(block, shape['images'])
        writer.write(block, teacher._replace(embedding=torch.rand(end - first, shape['embedding']),
                                             logits=torch.randn(end - first, shape['logits'])))
    writer.close()
    writer.finish()


def of_runner(args: argparse.Namespace, path: str, method: str) -> float:
    """Seconds of ``args.iterations`` iterations of a training."""
    clock, cfg = Clock(args.warmup, args.iterations), config_of(args, path, method)
    if path == 'cached':
        folder = WORK / f'answers_{Path(args.config).stem}'
        write_answers(folder, cfg.model)
        cfg.model.teacher_cache = dict(folder=str(folder))
        cfg.train_dataloader.dataset = dict(type='mmcrrcd.ReplayedViews', dataset=cfg.train_dataloader.dataset, views=VIEWS)
        cfg.custom_hooks = [*cfg.custom_hooks, dict(type='mmcrrcd.ReplayHook')]
    runner = Runner.from_cfg(cfg)
    runner.register_hook(clock)
    with contextlib.suppress(Done):
        runner.train()
    return clock.seconds


def of_bare_networks(args: argparse.Namespace, with_teacher: bool = True) -> float:
    """Seconds of the same number of steps that only run the two networks, or the student, on one batch."""
    model = MODELS.build(config_of(args, 'memory', 'kd').model).to(get_device()).train()
    model.load_teacher()
    optimizer = torch.optim.SGD(model.student.parameters(), LR, momentum=0.9, weight_decay=5e-4)
    high = torch.randn(BATCH, 3, 32, 32, device=get_device()).to(memory_format=torch.channels_last)
    low = high if args.resolution is None else F.interpolate(high, (args.resolution,) * 2)
    labels = torch.randint(100, (BATCH,), device=get_device())
    for step in range(args.warmup + args.iterations):
        if step == args.warmup:
            start = now()
        with torch.autocast(get_device(), torch.bfloat16, enabled=not args.float32):
            if with_teacher:
                model.forward_teacher(high)
            logits = extract(model.student, low).logits
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return now() - start


class Reference:
    """RepDistiller's training loop on its own data loader, resnet56 to resnet20."""

    def __init__(self, data_root: str):
        sys.modules.setdefault('tensorboard_logger', types.ModuleType('tensorboard_logger'))
        import torchvision
        original = torchvision.datasets.CIFAR100
        names = {'train_data': property(lambda self: self.data), 'train_labels': property(lambda self: self.targets)}
        torchvision.datasets.CIFAR100 = type('CIFAR100', (original,), names)
        from crd.criterion import CRDLoss
        from dataset import cifar100
        from distiller_zoo import DistillKL
        from helper import loops, util
        from models import model_dict
        torchvision.datasets.CIFAR100 = original
        cifar100.get_data_folder = lambda: data_root
        loops.accuracy = self.accuracy
        self.loaders, self.loops, self.util = cifar100, loops, util
        self.CRDLoss, self.DistillKL, self.networks = CRDLoss, DistillKL, model_dict
        self.ready = {}

    @staticmethod
    def accuracy(output, target, topk):
        """Its ``accuracy`` with ``reshape`` for ``view``."""
        right = output.topk(max(topk), 1)[1].t().eq(target.view(1, -1).expand(max(topk), -1))
        return [right[:k].reshape(-1).float().sum(0, keepdim=True).mul_(100.0 / len(target)) for k in topk]

    def build(self, method: str, workers: int) -> tuple:
        """What its ``train_student.py`` builds for a method, with the weights of its ``run_cifar_distill.sh``."""
        opt = types.SimpleNamespace(distill=method, gamma=1, alpha=1.0, beta=0.8, print_freq=10**9, s_dim=64, t_dim=64,
                                    feat_dim=128, nce_k=16384, nce_t=0.07, nce_m=0.5)
        with mock.patch('torchvision.datasets.cifar.check_integrity', lambda *_: True):
            if method == 'crd':
                loader, _, opt.n_data = self.loaders.get_cifar100_dataloaders_sample(BATCH, workers, k=opt.nce_k)
            else:
                loader, _, opt.n_data = self.loaders.get_cifar100_dataloaders(BATCH, workers, is_instance=True)
        student, teacher = (self.networks[name](num_classes=100) for name in ('resnet20', 'resnet56'))
        modules, trained = torch.nn.ModuleList([student]), torch.nn.ModuleList([student])
        criteria = [torch.nn.CrossEntropyLoss(), self.DistillKL(4), self.DistillKL(4)]
        if method == 'crd':
            where_there_is_no_gpu = mock.patch('crd.memory.AliasMethod.cuda', lambda self: None)
            with contextlib.nullcontext() if torch.cuda.is_available() else where_there_is_no_gpu:
                criteria[2] = self.CRDLoss(opt)
            for embed in (criteria[2].embed_s, criteria[2].embed_t):
                modules.append(embed)
                trained.append(embed)
        optimizer = torch.optim.SGD(trained.parameters(), LR, momentum=0.9, weight_decay=5e-4)
        modules.append(teacher)
        criteria = torch.nn.ModuleList(criteria)
        if torch.cuda.is_available():
            modules.cuda()
            criteria.cuda()
        return opt, loader, modules, criteria, optimizer

    def seconds(self, args: argparse.Namespace, method: str) -> float:
        if method not in self.ready:
            self.ready[method] = self.build(method, args.workers)
        opt, loader, modules, criteria, optimizer = self.ready[method]
        clock = {}

        def some_batches():
            for step, batch in enumerate(loader):
                if step == args.warmup:
                    clock['start'] = now()
                if step == args.warmup + args.iterations:
                    clock['end'] = now()
                    return
                yield batch

        some = some_batches()
        with contextlib.redirect_stdout(io.StringIO()):
            self.loops.train_distill(1, Sized(some, args.warmup + args.iterations), modules, criteria, optimizer, opt)
        return clock['end'] - clock['start']


class Sized:
    def __init__(self, batches, length: int):
        self.batches, self.length = batches, length

    def __iter__(self):
        return iter(self.batches)

    def __len__(self) -> int:
        return self.length


def measure(args: argparse.Namespace) -> dict:
    turns = {f'{path} {method}': lambda p=path, m=method: of_runner(args, p, m)
             for path in args.paths for method in args.methods}
    turns['bare networks'] = lambda: of_bare_networks(args)
    turns['bare student'] = lambda: of_bare_networks(args, with_teacher=False)
    if args.reference:
        reference = Reference(args.data_root)
        turns |= {f'reference {method}': lambda m=method: reference.seconds(args, m) for method in ('kd', 'crd')}
    seconds = in_turns(turns, args.rounds)
    rates = {name: [BATCH * args.iterations / each for each in found] for name, found in seconds.items()}
    return dict(config=args.config, resolution=args.resolution, batch=BATCH, iterations=args.iterations,
                workers=args.workers, precision='float32' if args.float32 else 'bfloat16', rates=rates)


def table(result: dict) -> str:
    """Markdown: images per second, and how often the reference's and how much of the bare networks' this is."""
    rates = result['rates']
    others = {'over the bare networks': 'bare networks', 'over the bare student': 'bare student',
              'over RepDistiller, KD': 'reference kd', 'over RepDistiller, CRD': 'reference crd'}
    others = {title: name for title, name in others.items() if name in rates}
    rows = [[name, f'{median(own):.0f}', f'{min(own):.0f} – {max(own):.0f}',
             ratio(rates, name, name.replace('cached', 'memory')) if name.startswith('cached') else '',
             *(ratio(rates, name, other) for other in others.values())] for name, own in rates.items()]
    return page(result, ['', 'images/s, median', 'range', 'over the live teacher', *others], rows,
                f'{Path(result["config"]).stem}, the student sees {result["resolution"] or 32} pixels, '
                f'batch {result["batch"]}, {result["precision"]}; '
                f'n = {len(next(iter(rates.values())))} rounds of {result["iterations"]} iterations'
                + (f'; the reference in float32, with {result["workers"]} workers.' if 'reference kd' in rates else '.'))


def main(argv: list[str] | None = None) -> None:
    parser = parser_of(__doc__, 'step_time', OF_REFERENCE, resolution=(None, 'of the student (default: all 32)'),
                       rounds=(3, 'turns of each'), iterations=(20, 'in a turn'),
                       warmup=(6, 'iterations before the clock runs; the queue takes six to fill'),
                       workers=(2, "processes of the reference's data loader"))
    parser.add_argument('--methods', nargs='+', default=list(METHODS), choices=list(METHODS), metavar='METHOD')
    parser.add_argument('--paths', nargs='+', default=PATHS, choices=PATHS)
    parser.add_argument('--reference', action='store_true', help='HobbitLong/RepDistiller, whose checkout is on PYTHONPATH')
    parser.add_argument('--float32', action='store_true', help='this package in float32, too')
    args = parser.parse_args(argv)
    if args.reference and (Path(args.config).stem, args.resolution) != (OF_REFERENCE, None):
        parser.error(f'--reference trains {OF_REFERENCE} at 32×32 px: leave --config and --resolution away')
    carry_out(args, measure, table)


if __name__ == '__main__':
    main()
