"""The paper's tables and Figure 3, the like of other data, and studies of single settings, trained here:
``python -m experiments table1 --cell kd/resnet56_resnet20 --seeds 1``, ``python -m experiments study tiny``.

Missing teachers are trained first. The same command goes on after an interruption and leaves out what is finished; given in a
second shell, it takes its share of the work. Each run leaves a record in experiments/records/, from which the table is made.
``python -m experiments render`` writes all tables into README and docs.
"""
import argparse
import re
import signal
import sys
from pathlib import Path

from mmengine.config import Config
from rich.console import Console

from mmcrrcd.command_line import one_line_errors
from mmcrrcd.engine.build_cache import views_of_text
from mmcrrcd.errors import InputError
from mmcrrcd.evaluation.data import named_images

from . import compose, pages, records
from .compose import FIRST_SEED, Recipe
from .figure3 import SWEEPS
from .runs import WORK, Run, carry_out, teacher_run
from .studies import STUDIES, Setting
from .tables import TABLES, UNTRAINED, Pair, Table, pair_name


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'at least 1, got {text}')
    return number


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m experiments', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('experiment', choices=[*TABLES, 'study', 'render'])
    parser.add_argument('name', nargs='?', help=f'of a study: {", ".join(STUDIES)}')
    parser.add_argument('--cell', nargs='+', metavar='METHOD/PAIR', help='only these, e.g. crrcd/resnet56_resnet20; of figure3 '
                        f'also whole sweeps: {", ".join(SWEEPS)}; of a study its labels')
    parser.add_argument('--seeds', type=positive, help=f"how many, from {FIRST_SEED} on (default: 3, or a study's own)")
    parser.add_argument('--schedule', choices=compose.SCHEDULES, help='of tables 1, 2, 4 and figure3 (default: cifar_240e)')
    parser.add_argument('--epochs', type=positive, help="shorten the schedule to so many; a method's first stage comes on top")
    parser.add_argument('--resolution', type=positive, help="pixels the student sees (default: the table's)")
    parser.add_argument('--teacher-checkpoint', metavar='PATH', help='a trained teacher, in place of the one that the config '
                        'names')
    parser.add_argument('--part', action='store_true', help='of table3: the files may hold a part of the test images')
    parser.add_argument('--views', type=views_of_text, metavar='N', help='read the teacher from a cache of so many views, or '
                        "all, where the method allows (default: 0, the teacher itself, or a study's own)")
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast, on CPU and GPU')
    parser.add_argument('--jobs', type=positive, default=1, help='runs side by side, on different GPUs where there are several')
    parser.add_argument('--slurm', metavar='PARTITION', help='start every run by srun (environment: CPUS_PER_TASK SRUN_ARGS)')
    parser.add_argument('--render', action='store_true', help='train nothing, only write what the records there are give')
    return parser.parse_args(argv)


def chosen(name: str, table: Table, wanted: list[str] | None) -> list[tuple[str, Pair]]:
    """(method, pair) of each wanted cell, all that the table has by default.

    Tables I and II can have further methods than the paper's, Figure 3 further pairs.
    """
    if not wanted:
        return table.cells()
    methods, pairs, found = list(table.methods), {'_'.join(pair): pair for pair in table.pairs}, []
    if not table.columns:
        methods += [method for method in compose.BASELINES if method not in methods]
    if name == 'figure3':
        wanted = [cell for each in wanted for cell in
                  ([f'{method}/{next(iter(pairs))}' for method in SWEEPS[each].names.values()] if each in SWEEPS else [each])]
        for path in sorted((compose.CONFIGS / 'crrcd').glob('*_cifar100.py')):
            teacher = Path(compose.load(f'crrcd/{path.stem}').teacher_config).stem.removesuffix('_cifar100')
            pair = path.stem.removesuffix('_cifar100')
            pairs[pair] = teacher, pair.removeprefix(f'{teacher}_')
    for cell in wanted:
        method, _, pair = cell.partition('/')
        if method not in methods:
            raise InputError(f'--cell {cell}: the table has the methods {", ".join(methods)}; say METHOD/PAIR')
        if pair not in pairs:
            raise InputError(f'--cell {cell}: there are the pairs {", ".join(pairs)}')
        found.append((method, pairs[pair]))
    return list(dict.fromkeys(found))


def run_of(cfg: Config, work: str, label: str, stem: str, about: dict, args: argparse.Namespace, seed: int,
           teacher: tuple[str | None, Run | None], **kwargs) -> Run:
    """The run of a composed ``cfg`` with a seed; ``stem``: of its record's name."""
    cfg = compose.paired(cfg, seed)
    if cfg.model.get('teacher_checkpoint'):
        cfg.model.teacher_checkpoint = teacher[0]
    training = dict(epochs=cfg.train_cfg.max_epochs, batch=cfg.train_dataloader.batch_size, lr=cfg.optim_wrapper.optimizer.lr,
                    precision='bfloat16' if args.amp else 'float32')
    name = re.sub(r'[^\w.+-]+', '_', stem) + f'__s{seed}'
    file = records.RECORDS / about['experiment'] / f'{name}.json'
    about = about | dict(seed=seed, training=training)
    return Run(f'{label} seed {seed}', WORK / work / name, cfg, file, about, *teacher, **kwargs)


def table_runs(args: argparse.Namespace, console: Console) -> list[Run]:
    """Of the wanted cells and seeds of a table, seed by seed."""
    table = TABLES[args.experiment]
    for option in table.fixed:
        if getattr(args, option):
            raise InputError(f'{args.experiment} has a {option} of its own, {getattr(table, option)}: leave --{option} away')
    if args.part and args.experiment != 'table3':
        raise InputError(f'--part is for the test images of table3; {args.experiment} takes them all')
    if missing := [f'{path} ({what})' for path, what in table.data.items() if not Path(path).exists()]:
        raise InputError(f'missing: {", ".join(missing)}; what lies where is in docs/data.md, what it may be used for in '
                         'configs/face/README.md')
    if table.evaluation == 'probe':                      # a missing or damaged data set is told before any training
        for split in ('train', 'test'):
            named_images(table.arguments['dataset'], split)
    recipe = Recipe(args.schedule or table.schedule, args.epochs, args.resolution or table.resolution, args.amp,
                    args.views or 0)
    runs = {}
    for method, pair in chosen(args.experiment, table, args.cell):
        cfg, untrained = table.compose(method, pair, recipe), method in UNTRAINED
        if args.part:
            cfg.val_dataloader.dataset.part = cfg.test_dataloader.dataset.part = True
        batch = cfg.train_dataloader.batch_size
        if (cfg.model.get('num_negatives') or batch) < batch:
            console.print(f'{method} is left out: its queue is shorter than the batch of {batch}')
            continue
        own = table.compose('crrcd' if 'crrcd' in table.methods else 'default', pair, recipe) if untrained else cfg
        teacher = teacher_run(own, recipe, args.teacher_checkpoint)
        what = pair_name(method, pair)
        about = dict(experiment=args.experiment, method=method, pair=what, recipe=recipe.label(),
                     resolution=recipe.resolution or 32)
        for seed in range(FIRST_SEED, FIRST_SEED + (1 if untrained else args.seeds or 3)):
            run = run_of(cfg, table.work, f'{method}/{what}', f'{method}__{what}__{recipe.label()}', about, args, seed, teacher,
                         untrained=untrained, further=None if untrained else table.further)
            runs[run.record] = run                       # a student-only baseline stands once for each of its teachers
    return sorted(runs.values(), key=lambda run: run.about['seed'])


def study_runs(args: argparse.Namespace) -> list[Run]:
    """Of the wanted arms and seeds of a study, seed by seed."""
    if args.name not in STUDIES:
        raise InputError(f'there is no study {args.name}: {", ".join(STUDIES)}')
    study, runs = STUDIES[args.name], []
    if unknown := [label for label in args.cell or () if label not in study.arms]:
        raise InputError(f'--cell {unknown[0]}: the study has {", ".join(study.arms)}')
    for label, arm in study.arms.items():
        if args.cell and label not in args.cell:
            continue
        changes = {key: value for key, value in arm.items() if key in Setting._fields}
        given = {key: getattr(args, key) for key in ('epochs', 'resolution', 'views')}
        changes |= {key: value for key, value in given.items() if value is not None}
        setting = study.base._replace(**changes)
        recipe = Recipe('paper_35e', setting.epochs, setting.resolution, args.amp, setting.views)
        options = {key: value for key, value in arm.items() if key not in Setting._fields}
        cfg = compose.of_study(setting, recipe, options)
        teacher = teacher_run(cfg, Recipe(amp=args.amp), args.teacher_checkpoint)
        about = dict(experiment=f'study_{args.name}', method=label, pair=f'{setting.teacher}_{setting.student}',
                     recipe=recipe.label(), resolution=setting.resolution or 32, setting=setting._asdict())
        runs += [run_of(cfg, about['experiment'], label, f'{label}__{recipe.label()}', about, args, seed, teacher)
                 for seed in range(FIRST_SEED, FIRST_SEED + (args.seeds or study.seeds))]
    return sorted(runs, key=lambda run: run.about['seed'])


def main(argv: list[str] | None = None) -> None:
    args, console = parse_args(argv), Console()
    failed = []
    with one_line_errors():
        if (args.experiment == 'study') != (args.name is not None):
            raise InputError(f'study has a NAME, nothing else has: {", ".join(STUDIES)}')
        if args.experiment == 'render':
            files = pages.render()
        else:
            if not args.render:
                runs = study_runs(args) if args.experiment == 'study' else table_runs(args, console)
                failed = carry_out(runs, args.jobs, args.slurm, console)
            files = pages.write(f'study_{args.name}' if args.experiment == 'study' else args.experiment)
        for file in files:
            console.print(str(file), soft_wrap=True)
    if failed:
        sys.exit('\n'.join([f'{len(failed)} failed:', *failed]))


if __name__ == '__main__':
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit('stopped; the same command goes on'))
    main()
