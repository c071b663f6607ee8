"""Does anything in a training step make the host wait for the device?

    python -m benchmarks.sync_audit configs/crrcd/resnet56_resnet20_cifar100.py

Runs the first iterations of a config with all its hooks and prints, for those between two lines of the log, every operation
that waits. On a GPU PyTorch itself watches (``torch.cuda.set_sync_debug_mode``). On a CPU, where nothing waits, it lists the
operations that would: reading a number, an index made of booleans, anything whose shape depends on values.
"""
import argparse
import sys
import traceback
from contextlib import ExitStack, suppress

import torch
from mmengine.config import Config
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import Runner
from torch.utils._python_dispatch import TorchDispatchMode

from mmcrrcd.command_line import add_options, one_line_errors, read_with_options
from mmcrrcd.engine.graphed import waits
from mmcrrcd.engine.launch import prepare_processes

WAITING = ('_local_scalar_dense', 'is_nonzero', 'nonzero', 'masked_select', 'equal', '_unique', '_unique2', 'unique_dim',
           'unique_consecutive')


def place() -> str:
    """The last line outside PyTorch that called the operation at hand."""
    frames = (frame for frame in reversed(traceback.extract_stack()) if frame.filename != __file__)
    return next(f'{frame.filename}:{frame.lineno}' for frame in frames if 'torch/' not in frame.filename)


class WaitingOperations(TorchDispatchMode):
    """Collects in ``found`` the operations that wait for a GPU when their tensors are on one, with their places."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().removeprefix('aten::').split('.')[0]
        by_booleans = name in ('index', 'index_put', 'index_put_') and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
        if name in WAITING or by_booleans:
            self.found.append(f'{name}{" by booleans" * by_booleans} at {place()}')
        return func(*args, **(kwargs or {}))


class AuditHook(Hook):
    """Watches the iterations that end without a line in the log, data and hooks included, and stops after ``iterations``."""

    priority = 'LOWEST'

    def __init__(self, iterations: int):
        self.iterations, self.watched, self.waits, self.found = iterations, 0, [], []
        self.watch = ExitStack()

    def stop(self) -> None:
        self.watch.close()
        self.waits, self.found = self.waits + self.found, []

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        self.stop()
        interval = next(h.interval for h in runner.hooks if isinstance(h, LoggerHook))
        if (batch_idx + 1) % interval and batch_idx + 1 < len(runner.train_dataloader):
            self.watched += 1
            if torch.cuda.is_available():
                self.found = self.watch.enter_context(waits())
            else:
                self.found = self.watch.enter_context(WaitingOperations()).found

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if batch_idx + 1 >= self.iterations:
            self.stop()
            raise StopIteration


def audit(cfg: Config, iterations: int) -> AuditHook:
    """Runs ``iterations`` of ``cfg`` and returns what was seen."""
    hook = AuditHook(iterations)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(hook)
    with suppress(StopIteration):
        runner.train()
    return hook


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('--iterations', type=int, default=20)
    add_options(parser)
    args = parser.parse_args(argv)
    with one_line_errors():
        cfg = read_with_options(args.config, args.cfg_options)
        cfg.work_dir = 'work_dirs/sync_audit'
        prepare_processes(cfg, 'none')
        hook = audit(cfg, args.iterations)
    for wait in sorted(set(hook.waits)):
        print(f'{hook.waits.count(wait)} x {wait}')
    print(f'{len(hook.waits)} waits in {hook.watched} iterations')
    sys.exit(bool(hook.waits))


if __name__ == '__main__':
    main()
