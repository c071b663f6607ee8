"""Tables I, II, III, V, VI and VII and Figure 3 of the paper, trained here, and the like for CIFAR-100, TinyImageNet and LFW:
``python tools/reproduce.py table1 --cell kd/resnet56_resnet20 --seeds 1``, ``python tools/reproduce.py fig3 --sweep tau``.

Without ``--cell`` or ``--sweep`` it trains all, missing teachers first. The same command goes on after an interruption and
leaves out what is finished. Results are in benchmarks/results/reproduce/, a JSON file for each cell or point; the table or the
curves are written beside them.
"""
import argparse
import hashlib
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from mmengine.config import Config
from rich.console import Console

from mmcrrcd.checkpoint import UnfinishedTraining, find_checkpoint, read_network, safe_load
from mmcrrcd.engine.launch import one_line_errors
from mmcrrcd.errors import InputError
from mmcrrcd.evaluation.embeddings import load_classifier

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'benchmarks'))

import face_tables  # noqa: E402
import figure3  # noqa: E402
import low_resolution  # noqa: E402
import recipes  # noqa: E402
import reproduced  # noqa: E402
from face_tables import FACE_TABLES, TRAINING_DATA, FaceResults, FaceTable  # noqa: E402
from in_step import carry_out_in_step, groups  # noqa: E402
from low_resolution import LOW_TABLES, RESTORED, LowResults, LowTable  # noqa: E402
from paper_tables import PAPER_TABLES, PaperTable  # noqa: E402
from reproduced import TEACHER_ALONE  # noqa: E402
from runs import Run, carry_out, curve, seconds  # noqa: E402
from train import refuse_small  # noqa: E402

WORK = Path('work_dirs/reproduce')
DECIDES = ('model', 'train_dataloader', 'val_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg')


def check_same(cfg: Config, text: str, source: Path) -> None:
    """Raises InputError where the config ``text`` differs in what decides the accuracy, seed and place of the teacher aside."""
    def deciding(cfg: Config) -> str:
        settings = {key: cfg.to_dict().get(key) for key in DECIDES}
        return json.dumps(settings | dict(model=settings['model'] | dict(teacher_checkpoint=None)), sort_keys=True)

    if deciding(Config.fromstring(text, '.py')) != deciding(cfg):
        raise InputError(f'{source} is of a run with other settings: move it away to train with those of now')


def is_trained(teacher: str) -> bool:
    try:
        read_network(teacher)
    except (FileNotFoundError, UnfinishedTraining):
        return False
    return True


@cache
def about_the_teacher(path: str) -> dict:
    """Epochs, accuracy after the last (None where there is no log) and checksum of a trained teacher."""
    file = find_checkpoint(path)
    epochs = safe_load(file).get('meta', {}).get('epoch')
    return dict(checkpoint=path, epochs=epochs, accuracy=curve(Path(path)).get(epochs),
                sha256=hashlib.sha256(file.read_bytes()).hexdigest()[:12])


@cache
def teacher_run(name: str, path: str, recipe: recipes.Recipe, data: str) -> Run:
    """The training of a teacher for these data, in the folder where the pair's config looks for it.

    A shortened one has a folder of its own; but a teacher that is there already is taken as it is.
    """
    folder = Path(path)
    if recipe.epochs and not is_trained(path):
        folder = WORK / 'teachers' / f'{folder.name}_in_{recipe.epochs}e'
    run = Run(f'teacher {name}', folder, recipes.teacher_recipe(name, recipe, data))
    run.finished = is_trained(str(folder))
    refuse_small(folder)
    return run


def about_the_training(run: Run) -> dict:
    """Seconds, hardware, versions and threads of a finished training."""
    abouts = [json.loads(line) for line in (run.folder / 'about.jsonl').read_text().splitlines()]
    hardware = ', then '.join(dict.fromkeys(about['hardware'] for about in abouts))
    return dict(seconds=seconds(run.folder)) | abouts[-1] | dict(hardware=hardware)


class Cell:
    """A cell of a table: the file with its results, and the runs that this still lacks, by their seeds."""

    work, compose, data = WORK, staticmethod(recipes.compose), 'cifar100'

    def __init__(self, table: str, method: str, pair: tuple[str, str], recipe: recipes.Recipe, seeds: list[int]):
        self.table, self.method, self.recipe = table, method, recipe
        self.pair = reproduced.pair_name(method, pair)
        stem = f'{method}__{self.pair}__{recipe.label()}'
        self.file = reproduced.RESULTS / table / f'{stem}.json'
        self.cfg, self.teacher = self.compose(method, pair, recipe), None
        if path := self.teacher_path(pair):
            self.teacher = teacher_run(pair[0], path, recipe, self.data)
            if 'teacher' in self.cfg.model:
                self.cfg.model.teacher_checkpoint = str(self.teacher.folder)
        record = self.record()
        self.runs = {seed: self.run(seed, self.work / stem) for seed in seeds if not record or str(seed) not in record['seeds']}
        if record:
            check_same(self.cfg, record['config'], self.file)
        if record and self.runs and self.teacher:
            path = self.teacher.folder
            if not self.teacher.finished or about_the_teacher(str(path))['sha256'] != record['teacher']['sha256']:
                raise InputError(f'{self.file} is of another teacher than that of {path}: move the file away')

    def teacher_path(self, pair: tuple[str, str]) -> str | None:
        """Where the trained teacher is looked for, None where there is none to train."""
        return self.cfg.model.get('teacher_checkpoint')

    def run(self, seed: int, folder: Path) -> Run:
        cfg = Config(self.cfg.to_dict())
        cfg.randomness.seed = seed
        return Run(f'{self.method}/{self.pair} seed {seed}', folder / f'seed{seed}', cfg, self.teacher, lambda: self.add(seed))

    def record(self) -> dict | None:
        return json.loads(self.file.read_text()) if self.file.exists() else None

    def add(self, seed: int) -> str:
        """Puts a finished run into the file; what to say of it."""
        run = self.runs[seed]
        result, said = self.outcome(run)
        model = self.cfg.model
        record = self.record() or dict(
            table=self.table, method=self.method, pair=self.pair,
            resolution=model.data_preprocessor.get('resolution') or model.get('input_size') or 32,
            schedule=self.recipe.schedule, epochs=self.cfg.train_cfg.max_epochs, batch=self.cfg.train_dataloader.batch_size,
            lr=self.cfg.optim_wrapper.optimizer.lr, precision='bfloat16' if self.recipe.amp else 'float32',
            teacher=self.about_teacher(run) if self.teacher else None,
            config=self.cfg.pretty_text, seeds={})
        record['seeds'][str(seed)] = result | dict(command=shlex.join(['python', *sys.argv]))
        self.file.parent.mkdir(parents=True, exist_ok=True)
        part = self.file.with_suffix('.part')
        part.write_text(json.dumps(record, indent=1) + '\n')
        os.replace(part, self.file)
        return said

    def about_teacher(self, run: Run) -> dict:
        """Of a finished run."""
        return about_the_teacher(str(self.teacher.folder))

    def outcome(self, run: Run) -> tuple[dict, str]:
        """Numbers and conditions of a finished run, and the same in words."""
        accuracies, conditions = curve(run.folder), about_the_training(run)
        last, best = accuracies[run.epochs], max(accuracies.values())
        numbers = dict(curve=[accuracies.get(epoch) for epoch in range(1, run.epochs + 1)], last=last, best=best)
        minutes = conditions['seconds'] / 60
        return numbers | conditions, f'{last:.2f} % at the last epoch, {best:.2f} % at the best, {minutes:.0f} min'


class Point(Cell):
    """A point of Figure 3; its method is a name in configs/ablations/crrcd.py."""

    work, compose = WORK / 'fig3', staticmethod(recipes.ablated)


class LowCell(Cell):
    """A cell of a table of small images: student and teacher are tested on images reduced in several ways."""

    def __init__(self, table: str, method: str, pair: tuple[str, str], recipe: recipes.Recipe, seeds: list[int]):
        self.data, self.side = LOW_TABLES[table].data, LOW_TABLES[table].side
        self.work = WORK / self.data
        super().__init__(table, method, pair, recipe, seeds)

    def compose(self, method: str, pair: tuple[str, str], recipe: recipes.Recipe) -> Config:
        return recipes.low(method, pair, recipe, self.data)

    def about_teacher(self, run: Run) -> dict:
        about = super().about_teacher(run)
        for file, label in reproduced.files(self.table).items():         # another cell may have tested it
            other = json.loads(file.read_text())['teacher'] if label == self.recipe.label() else None
            if other and other['sha256'] == about['sha256']:
                return other
        config, path = str(run.folder / 'config.py'), str(self.teacher.folder)
        return about | low_resolution.of_the_teacher(config, path, self.recipe.resolution, self.side)

    def outcome(self, run: Run) -> tuple[dict, str]:
        result, said = super().outcome(run)
        config = str(run.folder / 'config.py')
        network = load_classifier(config, str(run.folder / f'epoch_{run.epochs}.pth'))
        scale_to = self.side if self.pair.endswith(RESTORED) else None
        reductions = low_resolution.over_reductions(network, config, self.recipe.resolution, scale_to)
        return result | dict(reductions=reductions, images=low_resolution.images(run.cfg)), said


class Evaluation(Run):
    """The test of a face network by one of the tools, after the training that ``needs`` says, by the config of that."""

    def __init__(self, name: str, table: str, folder: Path, cfg: Config, needs: Run, then: Callable[[], str]):
        super().__init__(name, folder, cfg, needs, then)
        self.table, self.epochs = FACE_TABLES[table], 0  # of a training

    @property
    def result(self) -> Path:
        return self.folder / 'result.json'

    def command(self) -> list[str]:
        tool = os.path.relpath(Path(__file__).with_name(self.table.tool))
        return [sys.executable, '-u', tool, str(self.folder / 'config.py'), str(self.needs.folder), *self.table.arguments,
                '--json', str(self.result)]


class FaceCell(Cell):
    """A cell of a table of faces: its training is the same for all those with these training data, its runs are evaluations.

    The methods of TEACHER_ALONE train nothing but the teacher, of which there is one.
    """

    def __init__(self, table: str, method: str, pair: tuple[str, str], recipe: recipes.Recipe, seeds: list[int]):
        self.data, self.only_teacher = FACE_TABLES[table].trained_on, method in TEACHER_ALONE
        self.work = WORK / 'faces' / self.data
        super().__init__(table, method, pair, recipe, seeds[:1] if self.only_teacher else seeds)

    def compose(self, method: str, pair: tuple[str, str], recipe: recipes.Recipe) -> Config:
        return recipes.face(method, pair, recipe, self.data)

    def teacher_path(self, pair: tuple[str, str]) -> str | None:
        return f'work_dirs/{pair[0]}_{self.data}' if self.only_teacher else super().teacher_path(pair)

    def run(self, seed: int, folder: Path) -> Evaluation:
        training = super().run(seed, folder)
        training.then = lambda: self.trained(training)
        if is_trained(str(training.folder)) and (training.folder / 'teacher.json').exists():
            training.finished = True
            check_same(training.cfg, (training.folder / 'config.py').read_text(), training.folder)
            now = about_the_teacher(str(self.teacher.folder)) if self.teacher and self.teacher.finished else None
            if now and now['sha256'] != json.loads((training.folder / 'teacher.json').read_text())['sha256']:
                raise InputError(f'{training.folder} is of another teacher than that of {self.teacher.folder}: move it away')
        last = self.teacher if self.only_teacher else self.further(training)
        return Evaluation(f'{training.name}, {self.table}', self.table, training.folder / self.table,
                          training.cfg if self.only_teacher else last.cfg, last, lambda: self.add(seed))

    def further(self, training: Run) -> Run:
        """The last training before the test: this one, or the one by which the table lets it go on."""
        config = FACE_TABLES[self.table].further
        if config is None:
            return training
        folder, checkpoint = training.folder / Path(config).name, training.folder / f'epoch_{training.epochs}.pth'
        run = Run(f'{training.name}, further', folder, recipes.further(config, training.cfg, checkpoint, self.recipe), training)
        run.finished = is_trained(str(folder))
        if run.finished:
            check_same(run.cfg, (folder / 'config.py').read_text(), folder)
        return run

    def trained(self, training: Run) -> str:
        """Notes whom the student has learned from: it may be tested later, when the teacher is another."""
        teacher = super().about_teacher(training) if self.teacher else None
        (training.folder / 'teacher.json').write_text(json.dumps(teacher))
        return 'trained'

    def about_teacher(self, run: Evaluation) -> dict:
        if run.needs is self.teacher:
            return super().about_teacher(run)
        return json.loads((run.folder.parent / 'teacher.json').read_text())

    def outcome(self, run: Evaluation) -> tuple[dict, str]:
        found = json.loads(run.result.read_text())
        about = {key: found[key] for key in ('hardware', 'versions', 'threads')}
        said = ', '.join(f'{title} {found[key]:.2f} %' for title, key in run.table.numbers.items())
        if self.only_teacher:
            return dict(evaluation=found) | about, said
        if run.needs.needs is None or run.needs.needs is self.teacher:
            return dict(evaluation=found) | about_the_training(run.needs), said
        further = dict(seconds=seconds(run.needs.folder), config=run.needs.cfg.pretty_text)
        return dict(evaluation=found, further=further) | about_the_training(run.needs.needs), said


def need_data(runs: list[Run]) -> None:
    """Raises InputError where the faces that these runs train on or are tested with are missing."""
    needed = {}
    for run in runs:
        data = run.cfg.train_dataloader.dataset
        paths = [data.data_root, *([data.exclude] if 'exclude' in data else [])]
        needed |= run.table.data if isinstance(run, Evaluation) else {path: TRAINING_DATA.get(path, path) for path in paths}
    if missing := [f'{path} ({what})' for path, what in needed.items() if not Path(path).exists()]:
        raise InputError(f'missing: {", ".join(missing)}; what lies where is in docs/data.md, what it may be used for in '
                         'configs/face/README.md')


def chosen(paper: PaperTable | LowTable | FaceTable, wanted: list[str] | None) -> list[tuple[str, tuple[str, str]]]:
    """(method, pair) of each wanted cell, all that the table has by default."""
    there = {(method, '_'.join(pair)): (method, pair) for method, pair in paper.cells()}
    for cell in wanted or []:
        method, _, name = cell.partition('/')
        if method not in paper.methods():
            raise InputError(f'--cell {cell}: the table has the methods {", ".join(paper.methods())}; say METHOD/PAIR')
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
    parser.add_argument('table', choices=[*PAPER_TABLES, *LOW_TABLES, *FACE_TABLES, 'fig3'])
    parser.add_argument('--cell', nargs='+', metavar='METHOD/PAIR', help='of a table only these, e.g. crrcd/resnet56_resnet20')
    parser.add_argument('--sweep', nargs='+', choices=figure3.SWEEPS, metavar='SWEEP',
                        help=f'of fig3 only these: {", ".join(figure3.SWEEPS)}')
    parser.add_argument('--seeds', type=positive, default=3, help=f'how many, from {recipes.FIRST_SEED} on (default: 3)')
    parser.add_argument('--schedule', choices=recipes.SCHEDULES,
                        help=f'of table1, table2 and fig3 (default: {recipes.SCHEDULES[0]})')
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
        kind, paper = next((kind, tables[args.table]) for kind, tables in
                           ((Cell, PAPER_TABLES), (LowCell, LOW_TABLES), (FaceCell, FACE_TABLES)) if args.table in tables)
        cells = (kind(args.table, method, pair, recipe, seeds) for method, pair in chosen(paper, args.cell))
        return list({cell.file: cell for cell in cells}.values())        # a student alone stands once for each of its teachers
    points = []
    for name in figure3.names(args.sweep):
        point = Point('fig3', name, figure3.PAIR, recipe, seeds)
        batch = point.cfg.train_dataloader.batch_size
        if (point.cfg.model.get('num_negatives') or batch) >= batch:
            points.append(point)
        else:
            console.print(f'{name} is left out: its queue is shorter than the batch of {batch}')
    return points


def train_cells(args: argparse.Namespace, recipe: recipes.Recipe, console: Console) -> list[str]:
    """What failed, and why."""
    cells = wanted_cells(args, recipe, console)
    stages = [[run for cell in cells for run in cell.runs.values()]]
    while needed := [run.needs for run in stages[0] if run.needs and not run.needs.finished]:
        stages.insert(0, needed)
    runs = list(dict.fromkeys(run for stage in stages for run in stage))               # teachers first
    if args.table in FACE_TABLES:
        need_data(runs)
    for run in runs:
        for file in run.folder.glob('*.py'):             # from here, or from tools/train.py
            check_same(run.cfg, file.read_text(), run.folder)
    console.print(f'{"points" if args.table == "fig3" else "cells"}: {len(cells)}; runs to go: {len(runs)}, in {WORK}')
    students = stages[-1] if args.in_step else []
    groups(students)                                     # what cannot go in step is said before teachers are trained
    if others := [run for run in runs if run not in students]:
        carry_out(others, args.jobs, args.slurm, console)
    if students:
        carry_out_in_step(students, WORK / 'in_step' / f'{args.table}__{recipe.label()}', console)
    return [f'{run.name}: {run.failure}' for run in runs if run.failure]


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
        if args.cell and args.table == 'fig3' or args.sweep and args.table != 'fig3':
            raise InputError('--cell is for tables, --sweep for fig3')
        failed = [] if args.render else train_cells(args, recipe, console)
        label = recipe.label()
        results = (figure3.curves(label) if args.table == 'fig3' else
                   LowResults.read(args.table, label) if low else
                   FaceResults.read(args.table, label) if faces else reproduced.variant(args.table, label))
        for file in results.write():
            console.print(str(file), soft_wrap=True)
    if failed:
        sys.exit('\n'.join([f'{len(failed)} failed:', *failed]))


if __name__ == '__main__':
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit('stopped; the same command goes on'))
    main()
