"""How much faster a training step is as a CUDA graph, on a GPU.

    python benchmarks/step_graphs.py --methods student kd crrcd

The steps of one student, teacher, data and optimiser included, as ``tools/reproduce.py --in-step`` takes them: kernel by
kernel, then by the graphs of :mod:`mmcrrcd.engine.graphed`, one for the teacher and one for the student. From the same weights
with the same batches; the mean loss of the first steps of both is kept beside the times. The teacher must have been trained.
"""
import argparse
import sys
from pathlib import Path
from time import perf_counter

import recipes
import torch
from environment import KEPT, about_this_run, conditions, keep
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmcrrcd.engine import seed_all
from mmcrrcd.engine.launch import check_output, one_line_errors
from mmcrrcd.errors import InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'tools'))

from in_step import OneByOne, SideBySide, Student  # noqa: E402
from runs import Run  # noqa: E402

RESULT = KEPT / 'step_graphs.json'
COMPARED = 12                                            # steps whose mean loss is kept


def measure(run: Run, loader, kind: type[OneByOne], warmup: int, steps: int) -> dict:
    """Milliseconds of a step after ``warmup``, and the mean loss of the first."""
    student = Student(run, None, loader)
    step = kind([student], student.answers)
    seed_all(run.cfg.randomness.seed)
    loader.sampler.set_epoch(0)
    step.begin_epoch([student])
    for number, data in enumerate(loader):
        if number == COMPARED:
            loss = (student.totals['loss'][0] / student.totals['loss'][1]).item()
        if number == warmup:
            torch.cuda.synchronize()
            start = perf_counter()
        if number == warmup + steps:
            break
        step([student], student.model.data_preprocessor(data, training=True))
    torch.cuda.synchronize()
    result = dict(ms=1000 * (perf_counter() - start) / steps, loss=loss)
    if kind is SideBySide:
        result['why_not'] = step.steps[student].why_not
    return result


def compare(method: str, args: argparse.Namespace) -> dict:
    """A row: a method of Table I, kernel by kernel and as a graph."""
    cfg = recipes.compose(method, recipes.split(args.pair), recipes.Recipe('paper_35e', None, args.resolution, args.amp))
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=cfg.randomness.seed)
    if len(loader) <= args.warmup + args.steps:
        raise InputError(f'an epoch has {len(loader)} steps, too few for {args.warmup} + {args.steps}')
    run = Run(method, Path('work_dirs/step_graphs'), cfg)
    return dict(method=method, **{name: measure(run, loader, kind, args.warmup, args.steps)
                                  for name, kind in (('kernels', OneByOne), ('graph', SideBySide))})


def table(result: dict) -> str:
    lines = ['| | kernel by kernel, ms | as a graph, ms | ratio |', '|---|---|---|---|']
    for row in result['rows']:
        kernels, graph = row['kernels']['ms'], row['graph']['ms']
        waits = ' (waits, not captured)' if row['graph']['why_not'] else ''
        lines.append(f'| {row["method"]} | {kernels:.1f} | {graph:.1f}{waits} | {kernels / graph:.1f} |')
    seen = f'{result["resolution"] or 32} pixels'
    precision = 'bfloat16' if result['amp'] else 'float32 (convolutions in TF32)'
    return '\n'.join([*lines, '', f'{result["pair"]}, the student sees {seen}, batch 96, {precision}; the mean of '
                      f'{result["steps"]} steps, one run. {result.get("note", "")}{conditions(result)}'])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--methods', nargs='+', default=['student', 'kd', 'crrcd'], metavar='METHOD',
                        choices=['student', 'crrcd', *recipes.BASELINES])
    parser.add_argument('--pair', choices=recipes.PAIRS, default='resnet56_resnet20', metavar='PAIR')
    parser.add_argument('--resolution', type=int)
    parser.add_argument('--amp', action='store_true')
    parser.add_argument('--warmup', type=int, default=30)
    parser.add_argument('--steps', type=int, default=30)
    parser.add_argument('--json', type=Path, default=RESULT, metavar='FILE', help=f'where the numbers go (default: {RESULT})')
    args = parser.parse_args()
    with one_line_errors(), DefaultScope.overwrite_default_scope('mmpretrain'):
        check_output(args.json)
        if args.warmup < COMPARED + 1:
            raise InputError(f'--warmup is at least {COMPARED + 1}, got {args.warmup}')
        if not torch.cuda.is_available():
            raise InputError('CUDA graphs need a GPU')
        torch.backends.cudnn.benchmark = True
        MMLogger.get_instance('step_graphs').setLevel('WARNING')
        MessageHub.get_instance('step_graphs').update_info('epoch', 0)
        rows = [compare(method, args) for method in args.methods]
        result = dict(**about_this_run(), pair=args.pair, resolution=args.resolution, amp=args.amp, steps=args.steps, rows=rows)
    keep(result, args.json, table(result))


if __name__ == '__main__':
    main()
