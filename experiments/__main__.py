"""The paper's tables and figures, and studies of single settings, trained here:
``python -m experiments table1 --cell kd/resnet56_resnet20 --seeds 1``, ``python -m experiments study tiny``.

Missing teachers are trained first. The same command goes on after an interruption and leaves out what is finished; given in a
second shell, it takes its share of the work. Each run leaves a record in experiments/records/, from which the table is made.
"""
import argparse
import re
import signal
import sys

from rich.console import Console

from mmcrrcd.engine.launch import one_line_errors
from mmcrrcd.errors import InputError

from . import compose, records, report
from .compose import FIRST_SEED, Recipe
from .runs import WORK, Run, carry_out, teacher_run
from .studies import STUDIES, Setting


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f'at least 1, got {text}')
    return number


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='python -m experiments', description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('experiment', choices=['study'])
    parser.add_argument('name', nargs='?', help=f'of a study: {", ".join(STUDIES)}')
    parser.add_argument('--cell', nargs='+', metavar='METHOD/PAIR', help='only these, e.g. crrcd/resnet56_resnet20; of a '
                        'study its labels')
    parser.add_argument('--seeds', type=positive, default=3, help=f'how many, from {FIRST_SEED} on (default: 3)')
    parser.add_argument('--schedule', choices=compose.SCHEDULES)
    parser.add_argument('--epochs', type=positive, help="shorten the schedule to so many; a method's first stage comes on top")
    parser.add_argument('--resolution', type=positive, help='pixels the student sees')
    parser.add_argument('--teacher-checkpoint', metavar='PATH', help='a trained teacher, in place of the one that the config '
                        'names')
    parser.add_argument('--views', type=int, default=0, help='read the teacher from a cache of so many views, where the method '
                        'allows (default: 0, the teacher itself)')
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast, on CPU and GPU')
    parser.add_argument('--jobs', type=positive, default=1, help='runs side by side, on different GPUs where there are several')
    parser.add_argument('--slurm', metavar='PARTITION', help='start every run by srun (environment: CPUS_PER_TASK SRUN_ARGS)')
    parser.add_argument('--render', action='store_true', help='train nothing, only write what the records there are give')
    return parser.parse_args(argv)


def study_runs(args: argparse.Namespace) -> list[Run]:
    """Of the wanted arms and seeds of a study, seed by seed."""
    if args.name not in STUDIES:
        raise InputError(f'there is no study {args.name}: {", ".join(STUDIES)}')
    study, experiment = STUDIES[args.name], f'study_{args.name}'
    unknown = set(args.cell or ()) - set(study.arms)
    if unknown:
        raise InputError(f'--cell {unknown.pop()}: the study has {", ".join(study.arms)}')
    runs = []
    for seed in range(FIRST_SEED, FIRST_SEED + args.seeds):
        for label, arm in study.arms.items():
            if args.cell and label not in args.cell:
                continue
            fields = {key: value for key, value in arm.items() if key in Setting._fields}
            if args.epochs:
                fields['epochs'] = args.epochs
            if args.resolution:
                fields['resolution'] = args.resolution
            setting = study.base._replace(**fields)
            recipe = Recipe('paper_35e', setting.epochs, setting.resolution, args.amp, args.views)
            options = {key: value for key, value in arm.items() if key not in Setting._fields}
            cfg = compose.paired(compose.of_study(setting, recipe, options), seed)
            teacher, needs = teacher_run(cfg, Recipe(amp=args.amp), args.teacher_checkpoint)
            if teacher:
                cfg.model.teacher_checkpoint = teacher
            stem = f'{re.sub(r"[^A-Za-z0-9.+-]+", "_", label)}__{recipe.label()}__s{seed}'
            about = dict(experiment=experiment, method=label, pair=f'{setting.teacher}_{setting.student}', seed=seed,
                         recipe=recipe.label(), setting=setting._asdict())
            file = records.RECORDS / experiment / f'{stem}.json'
            runs.append(Run(f'{label} seed {seed}', WORK / experiment / stem, cfg, file, about, teacher, needs))
    return runs


def main(argv: list[str] | None = None) -> None:
    args, console = parse_args(argv), Console()
    with one_line_errors():
        runs = study_runs(args)
        failed = [] if args.render else carry_out(runs, args.jobs, args.slurm, console)
        for file in report.write_study(args.name):
            console.print(str(file), soft_wrap=True)
    if failed:
        sys.exit('\n'.join([f'{len(failed)} failed:', *failed]))


if __name__ == '__main__':
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit('stopped; the same command goes on'))
    main()
