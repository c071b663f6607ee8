"""Cells of the paper's tables, points of its Figure 3: what each trains and is tested on, and the file with its results."""
import hashlib
import json
import os
import shlex
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from filelock import FileLock
from mmengine.config import Config

from mmcrrcd.checkpoint import UnfinishedTraining, find_checkpoint, read_network, safe_load
from mmcrrcd.config import parse_config
from mmcrrcd.errors import InputError
from mmcrrcd.evaluation.embeddings import load_classifier

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'benchmarks'))

import low_resolution  # noqa: E402
import recipes  # noqa: E402
import reproduced  # noqa: E402
import transfer  # noqa: E402
from face_tables import FACE_TABLES, TRAINING_DATA  # noqa: E402
from linear_probe import probe  # noqa: E402
from low_resolution import LOW_TABLES, RESTORED  # noqa: E402
from reproduced import TEACHER_ALONE  # noqa: E402
from runs import Run, curve, means, seconds  # noqa: E402
from train import refuse_small  # noqa: E402
from transfer import TRANSFER_TABLES  # noqa: E402

WORK = Path('work_dirs/reproduce')
DECIDES = ('model', 'train_dataloader', 'val_dataloader', 'optim_wrapper', 'param_scheduler', 'train_cfg')


def check_same(cfg: Config, text: str, source: Path) -> None:
    """Raises InputError where the config ``text`` differs in what decides the accuracy, seed and place of the teacher aside."""
    def deciding(cfg: Config) -> str:
        settings = {key: cfg.to_dict().get(key) for key in DECIDES}
        return json.dumps(settings | dict(model=settings['model'] | dict(teacher_checkpoint=None)), sort_keys=True)

    if deciding(parse_config(text, source)) != deciding(cfg):
        raise InputError(f'{source} is of a run with other settings: move it away to train with those of now')


def is_trained(teacher: str) -> bool:
    try:
        read_network(teacher)
    except (FileNotFoundError, UnfinishedTraining):
        return False
    return True


@cache
def about_the_teacher(path: str) -> dict:
    """Epochs and accuracy after the last (None where unknown), checksum, and the file it was imported from, of a teacher."""
    file = find_checkpoint(path)
    meta = safe_load(file).get('meta', {})
    return dict(checkpoint=path, epochs=meta.get('epoch'), accuracy=curve(Path(path)).get(meta.get('epoch')),
                sha256=hashlib.sha256(file.read_bytes()).hexdigest()[:12], **reproduced.source(meta))


@cache
def teacher_run(name: str, path: str, recipe: recipes.Recipe, data: str) -> Run:
    """The training of a teacher for these data, in the folder where the pair's config looks for it.

    A shortened one has a folder of its own; but a teacher that is there already is taken as it is.
    """
    folder = Path(path)
    if recipe.epochs and not is_trained(path):
        folder = WORK / 'teachers' / f'{folder.name}_in_{recipe.epochs}e'
    run = Run(f'teacher {name}', folder, recipes.teacher_recipe(name, recipe, data))
    refuse_small(folder, run.cfg.model.get('input_size', 32))
    run.finished = is_trained(str(folder))
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

    def training(self, seed: int, folder: Path) -> Run:
        """The training of a seed; finished, where its folder has it already, with these settings and from this teacher."""
        cfg = Config(self.cfg.to_dict())
        cfg.randomness.seed = seed
        run = Run(f'{self.method}/{self.pair} seed {seed}', folder / f'seed{seed}', cfg, self.teacher)
        noted = run.folder / 'teacher.json'
        if noted.exists() and is_trained(str(run.folder)):
            run.finished = True
            check_same(run.cfg, (run.folder / 'config.py').read_text(), run.folder)
            now = about_the_teacher(str(self.teacher.folder)) if self.teacher and self.teacher.finished else None
            if now and now['sha256'] != json.loads(noted.read_text())['sha256']:
                raise InputError(f'{run.folder} is of another teacher than that of {self.teacher.folder}: move it away')
        return run

    def run(self, seed: int, folder: Path) -> Run:
        """The training of a seed, and what to do when it has finished."""
        run = self.training(seed, folder)
        run.then = lambda: self.add(seed)
        return run

    def note_teacher(self, run: Run) -> None:
        """Of a training that has just finished: it may be tested later, when the teacher is another."""
        if not run.finished:                             # else it was noted then
            about = about_the_teacher(str(self.teacher.folder)) if self.teacher else None
            (run.folder / 'teacher.json').write_text(json.dumps(about))

    def record(self) -> dict | None:
        return json.loads(self.file.read_text()) if self.file.exists() else None

    def add(self, seed: int) -> str:
        """Puts a finished run into the file; what to say of it."""
        run = self.runs[seed]
        self.note_teacher(run)
        result, said = self.outcome(run)
        first = self.record() or self.without_seeds(run)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(WORK / 'results.lock'):            # another process may add another seed
            record = self.record() or first
            record['seeds'][str(seed)] = result | dict(command=shlex.join(['python', *sys.argv]))
            part = self.file.with_suffix('.part')
            part.write_text(json.dumps(record, indent=1) + '\n')
            os.replace(part, self.file)
        return said

    def without_seeds(self, run: Run) -> dict:
        """What the file says beside the seeds' results."""
        model = self.cfg.model
        return dict(
            table=self.table, method=self.method, pair=self.pair,
            resolution=model.data_preprocessor.get('resolution') or model.get('input_size') or 32,
            schedule=self.recipe.schedule, epochs=self.cfg.train_cfg.max_epochs, batch=self.cfg.train_dataloader.batch_size,
            lr=self.cfg.optim_wrapper.optimizer.lr, precision='bfloat16' if self.recipe.amp else 'float32',
            teacher=self.about_teacher(run) if self.teacher else None,
            config=self.cfg.pretty_text, seeds={})

    def about_teacher(self, run: Run) -> dict:
        """Of a finished run."""
        return json.loads((run.folder / 'teacher.json').read_text())

    def outcome(self, run: Run) -> tuple[dict, str]:
        """Numbers and conditions of a finished run, and the same in words."""
        accuracies, conditions = curve(run.folder), about_the_training(run)
        last, best = accuracies[run.epochs], max(accuracies.values())
        numbers = dict(curve=[accuracies.get(epoch) for epoch in range(1, run.epochs + 1)], last=last, best=best)
        if shown := means(run.folder):
            numbers['means'] = shown
        minutes = conditions['seconds'] / 60
        return numbers | conditions, f'{last:.2f} % at the last epoch, {best:.2f} % at the best, {minutes:.0f} min'


class Point(Cell):
    """A point of Figure 3; its method is a name in configs/ablations/crrcd.py."""

    work, compose = WORK / 'fig3', staticmethod(recipes.ablated)


class TestedCell(Cell):
    """A cell whose networks are tested further when they are trained; ``test`` and ``test_teacher`` say how, for the file."""

    def about_teacher(self, run: Run) -> dict:
        about = super().about_teacher(run)
        for file, label in reproduced.files(self.table).items():         # another cell may have tested it
            other = json.loads(file.read_text())['teacher'] if label == self.recipe.label() else None
            if other and other['sha256'] == about['sha256']:
                return other
        return about | self.test_teacher(str(run.folder / 'config.py'), str(self.teacher.folder))

    def outcome(self, run: Run) -> tuple[dict, str]:
        result, said = super().outcome(run)
        return result | self.test(str(run.folder / 'config.py'), str(run.folder / f'epoch_{run.epochs}.pth')), said

    def test(self, config: str, checkpoint: str) -> dict:
        raise NotImplementedError

    def test_teacher(self, config: str, checkpoint: str) -> dict:
        """``config`` is that of a student."""
        raise NotImplementedError


class LowCell(TestedCell):
    """A cell of a table of small images: student and teacher are tested on images reduced in several ways."""

    def __init__(self, table: str, method: str, pair: tuple[str, str], recipe: recipes.Recipe, seeds: list[int]):
        self.data, self.side = LOW_TABLES[table].data, LOW_TABLES[table].side
        self.work = WORK / self.data
        super().__init__(table, method, pair, recipe, seeds)

    def compose(self, method: str, pair: tuple[str, str], recipe: recipes.Recipe) -> Config:
        return recipes.low(method, pair, recipe, self.data)

    def test(self, config: str, checkpoint: str) -> dict:
        network, scale_to = load_classifier(config, checkpoint), self.side if self.pair.endswith(RESTORED) else None
        reductions = low_resolution.over_reductions(network, config, self.recipe.resolution, scale_to)
        return dict(reductions=reductions, images=low_resolution.images(self.cfg))

    def test_teacher(self, config: str, checkpoint: str) -> dict:
        return low_resolution.of_the_teacher(config, checkpoint, self.recipe.resolution, self.side)


class TransferCell(TestedCell):
    """A cell of Table IV: linear classifiers on the embeddings of student and teacher."""

    def test(self, config: str, checkpoint: str, teacher: bool = False) -> dict:
        network = load_classifier(config, checkpoint, teacher)
        return dict(probe=probe(network, TRANSFER_TABLES[self.table].dataset, None, transfer.CLASSIFIERS))

    def test_teacher(self, config: str, checkpoint: str) -> dict:
        return self.test(config, checkpoint, teacher=True)


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
        training = self.training(seed, folder)
        training.then = lambda: self.trained(training)
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
        super().note_teacher(training)
        return 'trained'

    def note_teacher(self, run: Evaluation) -> None:
        """Nothing: its training has."""

    def about_teacher(self, run: Evaluation) -> dict:
        if run.needs is self.teacher:
            return about_the_teacher(str(self.teacher.folder))
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
