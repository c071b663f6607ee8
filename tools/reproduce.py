"""Tables I to VII and Figure 3 of the paper, trained here, and the like for CIFAR-100, TinyImageNet and LFW:
``python tools/reproduce.py table1 --cell kd/resnet56_resnet20 --seeds 1``, ``python tools/reproduce.py fig3 --sweep tau``.

Without ``--cell`` or ``--sweep`` it trains all, missing teachers first. The same command goes on after an interruption and
leaves out what is finished. Results are in benchmarks/results/reproduce/, a JSON file for each cell or point; the table or the
curves are written beside them.
"""
import argparse
import signal
import sys

from cells import WORK, Cell, FaceCell, LowCell, Point, TransferCell, check_same, need_data       # makes benchmarks/ known
from rich.console import Console

from mmcrrcd.engine.launch import one_line_errors
from mmcrrcd.errors import InputError
from mmcrrcd.evaluation.embeddings import named_images

import face_tables  # noqa: E402
import figure3  # noqa: E402
import low_resolution  # noqa: E402
import recipes  # noqa: E402
import reproduced  # noqa: E402
from face_tables import FACE_TABLES, FaceResults, FaceTable  # noqa: E402
from in_step import carry_out_in_step, groups  # noqa: E402
from low_resolution import LOW_TABLES, LowResults, LowTable  # noqa: E402
from paper_tables import PAPER_TABLES, PaperTable  # noqa: E402
from runs import carry_out  # noqa: E402
from transfer import TRANSFER_TABLES, TransferResults, TransferTable  # noqa: E402


def chosen(paper: PaperTable | LowTable | TransferTable | FaceTable,
           wanted: list[str] | None) -> list[tuple[str, tuple[str, str]]]:
    """(method, pair) of each wanted cell, all that the table has by default.

    Of the tables of all methods further ones can be wanted than the paper's have, for all of their pairs.
    """
    cells, methods = paper.cells(), paper.methods()
    if wanted and isinstance(paper, PaperTable):
        methods = list(dict.fromkeys([*methods, *recipes.BASELINES]))
        cells = [(method, pair) for method in methods for pair in paper.pairs]
    there = {(method, '_'.join(pair)): (method, pair) for method, pair in cells}
    for cell in wanted or []:
        method, _, name = cell.partition('/')
        if method not in methods:
            raise InputError(f'--cell {cell}: the table has the methods {", ".join(methods)}; say METHOD/PAIR')
        if (method, name) not in there:
            raise InputError(f'--cell {cell}: {method} has the pairs {", ".join(n for m, n in there if m == method)}')
    return [cell for (method, name), cell in there.items() if not wanted or f'{method}/{name}' in wanted]


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'at least 1, got {text}')
    return number


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('table', choices=[*PAPER_TABLES, *LOW_TABLES, *TRANSFER_TABLES, *FACE_TABLES, 'fig3'])
    parser.add_argument('--cell', nargs='+', metavar='METHOD/PAIR', help='of a table only these, e.g. crrcd/resnet56_resnet20')
    parser.add_argument('--sweep', nargs='+', choices=figure3.SWEEPS, metavar='SWEEP',
                        help=f'of fig3 only these: {", ".join(figure3.SWEEPS)}')
    parser.add_argument('--pair', choices=recipes.PAIRS, default=figure3.PAIR, metavar='PAIR',
                        help=f'of fig3 (default: {figure3.PAIR}): {", ".join(recipes.PAIRS)}')
    parser.add_argument('--seeds', type=positive, default=3, help=f'how many, from {recipes.FIRST_SEED} on (default: 3)')
    parser.add_argument('--schedule', choices=recipes.SCHEDULES,
                        help=f'of tables I, II and IV and fig3 (default: {recipes.SCHEDULES[0]})')
    parser.add_argument('--epochs', type=positive, help="shorten the schedule to so many; a method's first stage comes on top")
    parser.add_argument('--resolution', type=int, choices=[8, 16],
                        help='pixels the student sees (default: all 32; small images 8, faces 16)')
    parser.add_argument('--jobs', type=positive, default=1, help='runs side by side, on different GPUs where there are several')
    parser.add_argument('--in-step', action='store_true',
                        help='students of one teacher in one process, which asks it once for all: on CPUs much the faster way')
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast, on CPU and GPU')
    parser.add_argument('--slurm', metavar='PARTITION', help='start every run by srun (environment: CPUS_PER_TASK SRUN_ARGS)')
    parser.add_argument('--render', action='store_true', help='train nothing, only write what the results there are give')
    return parser.parse_args(argv)


def wanted_cells(args: argparse.Namespace, recipe: recipes.Recipe, console: Console) -> list[Cell]:
    """The cells of a table, or the points of Figure 3 whose queue holds a batch."""
    seeds = list(range(recipes.FIRST_SEED, recipes.FIRST_SEED + args.seeds))
    if args.table != 'fig3':
        kinds = {Cell: PAPER_TABLES, LowCell: LOW_TABLES, TransferCell: TRANSFER_TABLES, FaceCell: FACE_TABLES}
        kind, paper = next((kind, tables[args.table]) for kind, tables in kinds.items() if args.table in tables)
        cells = (kind(args.table, method, pair, recipe, seeds) for method, pair in chosen(paper, args.cell))
        return list({cell.file: cell for cell in cells}.values())        # a student alone stands once for each of its teachers
    points = []
    for name in figure3.names(args.sweep):
        point = Point('fig3', name, recipes.split(args.pair), recipe, seeds)
        batch = point.cfg.train_dataloader.batch_size
        if (point.cfg.model.get('num_negatives') or batch) >= batch:
            points.append(point)
        else:
            console.print(f'{name} is left out: its queue is shorter than the batch of {batch}')
    return points


def train_cells(args: argparse.Namespace, recipe: recipes.Recipe, console: Console) -> list[str]:
    """What failed, and why."""
    cells = wanted_cells(args, recipe, console)
    wanted = [run for cell in cells for run in cell.runs.values()]
    stages = [[run for run in wanted if not run.finished]]
    while needed := [run.needs for run in stages[0] if run.needs and not run.needs.finished]:
        stages.insert(0, needed)
    runs = list(dict.fromkeys(run for stage in stages for run in stage))               # teachers first
    if args.table in FACE_TABLES:
        need_data(runs)
    if args.table in TRANSFER_TABLES and wanted:         # a missing or damaged data set is told before any training
        for split in ('train', 'test'):
            named_images(TRANSFER_TABLES[args.table].dataset, split)
    for run in runs:
        for file in run.folder.glob('*.py'):             # from here, or from tools/train.py
            check_same(run.cfg, file.read_text(), run.folder)
    trained = [run for run in wanted if run.finished]    # for another table, or just before an interruption
    console.print(f'{"points" if args.table == "fig3" else "cells"}: {len(cells)}; runs to go: {len(runs)}, in {WORK}'
                  + (f'; trained already: {len(trained)}' if trained else ''))
    for run in trained:
        console.print(f'{run.name}: {run.conclude()}', highlight=False, markup=False, soft_wrap=True)
    students = stages[-1] if args.in_step else []
    groups(students)                                     # what cannot go in step is said before teachers are trained
    if others := [run for run in runs if run not in students]:
        carry_out(others, args.jobs, args.slurm, console)
    if students:
        carry_out_in_step(students, WORK / 'in_step' / f'{args.table}__{recipe.label()}', console)
    return [f'{run.name}: {run.failure}' for run in [*runs, *trained] if run.failure]


def main(argv: list[str] | None = None) -> None:
    args, console = parse_args(argv), Console()
    low, faces = args.table in LOW_TABLES, args.table in FACE_TABLES
    schedule, resolution = ((face_tables.SCHEDULE, face_tables.PIXELS) if faces else
                            (low_resolution.SCHEDULE, args.resolution or low_resolution.PIXELS) if low else
                            (args.schedule or recipes.SCHEDULES[0], args.resolution))
    recipe = recipes.Recipe(schedule, args.epochs, resolution, args.amp)
    with one_line_errors():
        if faces and (args.schedule or args.resolution):
            raise InputError(f'{args.table} is of {resolution} pixels with the schedule {schedule}: leave --schedule and '
                             '--resolution away')
        if low and args.schedule:
            raise InputError(f'{args.table} has the schedule {schedule}: leave --schedule away')
        if args.in_step and (faces or args.slurm):
            raise InputError('--in-step is not for faces, and without --slurm')
        if args.cell and args.table == 'fig3' or args.table != 'fig3' and (args.sweep or args.pair != figure3.PAIR):
            raise InputError('--cell is for tables, --sweep and --pair for fig3')
        failed = [] if args.render else train_cells(args, recipe, console)
        label = recipe.label()
        results = (figure3.curves(label, args.pair) if args.table == 'fig3' else
                   LowResults.read(args.table, label) if low else
                   TransferResults.read(args.table, label) if args.table in TRANSFER_TABLES else
                   FaceResults.read(args.table, label) if faces else reproduced.variant(args.table, label))
        for file in results.write():
            console.print(str(file), soft_wrap=True)
    if failed:
        sys.exit('\n'.join([f'{len(failed)} failed:', *failed]))


if __name__ == '__main__':
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit('stopped; the same command goes on'))
    main()
