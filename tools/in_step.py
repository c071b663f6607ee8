"""Several trainings in one process, in step: the same batches for all, and a teacher that is asked once for all of them.

Where a teacher's answers cost more than a small student this saves most of the time, and the students of a table differ in
their method alone. Each has the weights, losses, optimiser and schedules that its config gives it. There is a line of log
after each epoch, with the test accuracies; means of the losses are kept beside them in the runs' folders.
"""
import gc
import hashlib
import json
import os
import time
from math import isfinite
from pathlib import Path

import torch
from mmengine.device import get_device
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope
from mmengine.runner import Runner, set_random_seed
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from runs import BeingTrained, Run, locked, reached
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from mmcrrcd.checkpoint import safe_load
from mmcrrcd.engine import seed_all
from mmcrrcd.engine.graphed import GraphedStep, SteadyBatch
from mmcrrcd.engine.hooks.check_input import check_training
from mmcrrcd.engine.hooks.critic_watch import warning_of
from mmcrrcd.environment import about_this_run
from mmcrrcd.errors import InputError
from mmcrrcd.models import Distiller
from mmcrrcd.registry import MODELS
from mmcrrcd.structures import Batch, Stream


class Answers:
    """What a frozen teacher says of the images of a batch, computed for the first who asks, kept for the others."""

    def __init__(self, model: Distiller):
        self.teacher, self.teach, self.kept = model.teacher, model.teach, {}

    def __call__(self, images: Tensor):
        if id(images) not in self.kept:
            self.kept[id(images)] = images, self.teach(images)
        return self.kept[id(images)][1]

    def forget(self) -> None:
        """What was said of the batch before."""
        self.kept.clear()

    def keep(self, images: Tensor, stream: Stream) -> None:
        """This has been said of ``images``, and of no others."""
        self.kept = {id(images): (images, stream)}


class Student:
    """A run's model, optimiser and schedules, and after each epoch its test accuracy and the means of its losses and scores.

    ``answers`` are those of a teacher that another student has loaded; None for the first. Raises InputError where the
    method refuses the networks, or the data do not fit it.
    """

    def __init__(self, run: Run, answers: Answers | None, loader: DataLoader):
        self.run, self.curve, self.log, self.answers = run, [], [], None
        self.totals = {}                                 # of the epoch, on the device: sum and number of each value
        set_random_seed(run.cfg.randomness.seed)
        self.model = MODELS.build(run.cfg.model)
        check_training(self.model, loader, run.epochs)
        shares = run.cfg.model.get('teacher_checkpoint') is not None
        if shares and answers:
            self.model.use_teacher(answers.teacher)
        self.model.init_weights()
        self.model.to(get_device()).train()
        if shares:
            self.answers = answers or Answers(self.model)
            self.model.teach = self.answers
        self.wrapper = build_optim_wrapper(self.model, run.cfg.optim_wrapper)
        schedules = run.cfg.param_scheduler if isinstance(run.cfg.param_scheduler, list) else [run.cfg.param_scheduler]
        self.schedules = [PARAM_SCHEDULERS.build(dict(schedule, optimizer=self.wrapper)) for schedule in schedules]

    @property
    def checkpoint(self) -> Path:
        """The last of its training."""
        return self.run.folder / f'epoch_{self.run.epochs}.pth'

    def step(self, batch: dict) -> None:
        """Learns from a batch that the preprocessor has been through."""
        with self.wrapper.optim_context(self.model):
            loss, parts = self.model.parse_losses(self.model(**batch, mode='loss'))
        self.wrapper.update_params(loss)
        for name, value in parts.items():
            if name not in self.totals:
                self.totals[name] = torch.zeros(2, device=value.device)
            self.totals[name] += F.pad(value.detach().float().view(1), (0, 1), value=1.0)

    @torch.no_grad()
    def right(self, batch: dict) -> Tensor:
        """How many images of a test batch it gets right."""
        answers = self.model(batch['inputs'], mode='tensor').argmax(1)
        return (answers == Batch.of(batch['data_samples']).labels).sum()

    def end_epoch(self, accuracy: float) -> None:
        """Notes the test accuracy in percent and the means of the epoch, moves the learning rates."""
        means = torch.stack([total / number for total, number in self.totals.values()]).tolist()
        self.curve.append(accuracy)
        self.log.append(dict(zip(self.totals, means)))
        self.totals.clear()
        for schedule in self.schedules:
            schedule.step()

    def is_finite(self) -> bool:
        """Are the loss of the last epoch and the weights numbers?"""
        weights = torch.stack([parameter.detach().isfinite().all() for parameter in self.model.parameters()])
        return isfinite(self.log[-1]['loss']) and bool(weights.all())

    def parts(self) -> list:
        return [self.model, self.wrapper, *self.schedules]

    def state(self) -> dict:
        return dict(config=self.run.cfg.pretty_text, checkpoint=str(self.checkpoint), curve=self.curve, log=self.log,
                    parts=[part.state_dict() for part in self.parts()])

    def load(self, state: dict, file: Path) -> None:
        """Raises InputError where the state in ``file`` is of another config."""
        if state['config'] != self.run.cfg.pretty_text:
            raise InputError(f'{file} is of a training of {self.run.name} with other settings: finish that, or move it away')
        self.curve, self.log = state['curve'], state['log']
        for part, saved in zip(self.parts(), state['parts'], strict=True):
            part.load_state_dict(saved)

    def finish(self, abouts: list[dict], seconds: float, together: list[str], metainfo: dict) -> str:
        """Leaves in the run's folder what a finished training has: config, weights, curve, and the conditions, of each process
        that it took (``abouts``) and ``seconds`` of all.
        """
        self.run.folder.mkdir(parents=True, exist_ok=True)
        self.run.cfg.dump(self.run.folder / 'config.py')
        meta = dict(epoch=self.run.epochs, cfg=self.run.cfg.pretty_text, dataset_meta=metainfo)
        write(dict(state_dict=self.model.state_dict(), meta=meta), self.checkpoint)
        rows = (json.dumps({'accuracy/top1': accuracy, 'step': epoch, **means}) + '\n'
                for epoch, (accuracy, means) in enumerate(zip(self.curve, self.log), 1))
        (self.run.folder / 'evaluated.json').write_text(''.join(rows))
        lines = (json.dumps(about | dict(seconds=seconds, in_step=together)) + '\n' for about in abouts)
        (self.run.folder / 'about.jsonl').write_text(''.join(lines))
        said = self.run.conclude()
        (self.run.folder / 'last_checkpoint').write_text(str(self.checkpoint))
        return said


class OneByOne:
    """The students of a training take their steps one after the other."""

    def __init__(self, students: list[Student], answers: Answers | None):
        self.answers = answers

    def begin_epoch(self, students: list[Student]) -> None:
        pass

    def __call__(self, students: list[Student], batch: dict) -> None:
        """All learn from a batch that the preprocessor has been through."""
        if self.answers:
            self.answers.forget()
        for student in students:
            student.step(batch)

    def right(self, students: list[Student], batch: dict) -> list[Tensor]:
        """How many images of a test batch each of them gets right."""
        return [student.right(batch) for student in students]


class SideBySide(OneByOne):
    """The same on a GPU, where small students leave most of it idle: by CUDA graphs, on a stream for each of them."""

    def __init__(self, students: list[Student], answers: Answers | None):
        super().__init__(students, answers)
        self.steady, self.steady_test, self.teacher = SteadyBatch(), SteadyBatch(), answers and GraphedStep(self.ask)
        self.steps = {student: GraphedStep(student.step) for student in students}
        self.tests = {student: GraphedStep(student.right) for student in students}       # the same in all epochs

    def ask(self, batch: dict) -> Stream:
        first = next(iter(self.steps))                   # all have one precision
        self.answers.forget()
        with first.wrapper.optim_context(first.model):
            return self.answers(batch['inputs'].high)

    def begin_epoch(self, students: list[Student]) -> None:
        self.steps, self.tests = ({student: each[student] for student in students} for each in (self.steps, self.tests))
        for step in (self.teacher, *self.steps.values()):
            if step:
                step.restart()

    def __call__(self, students: list[Student], batch: dict) -> None:
        batch = self.steady(batch)
        steady = batch is self.steady.kept
        if self.teacher:
            said, = all_at_once([self.teacher], batch, steady)
            self.answers.keep(batch['inputs'].high, said)
            steady = steady and self.teacher.ready       # else its answers are elsewhere each time
        all_at_once([self.steps[student] for student in students], batch, steady)

    def right(self, students: list[Student], batch: dict) -> list[Tensor]:
        batch = self.steady_test(batch)
        return all_at_once([self.tests[student] for student in students], batch, batch is self.steady_test.kept)


def all_at_once(steps: list[GraphedStep], batch: dict, steady: bool) -> list:
    """What each returns. Those that draw random numbers come first and one by one."""
    outputs = {}
    for step in sorted(steps, key=lambda step: not step.draws):
        outputs[step] = step.launch(batch, steady)
        if step.draws:
            step.join()
    for step in steps:
        step.join()
    return [outputs[step] for step in steps]


def write(state: dict, file: Path) -> None:
    """Whole or not at all."""
    part = file.with_suffix('.part')
    torch.save(state, part)
    os.replace(part, file)


def groups(runs: list[Run]) -> dict[str, list[Run]]:
    """Those together that have data, batches, seed, resolution and teacher in common, and a name for each group.

    Raises InputError where a run has been begun by itself.
    """
    shared, found = {}, {}
    for run in runs:
        if reached(run.folder):
            raise InputError(f'{run.folder} has been begun by itself: let it go on without --in-step, or move it away')
        alike = [run.cfg.train_dataloader, run.cfg.randomness, run.cfg.model.data_preprocessor]
        shared.setdefault(json.dumps(alike, default=str, sort_keys=True), []).append(run)
    for key, group in shared.items():
        teachers = sorted({run.cfg.model.get('teacher_checkpoint') for run in group} - {None})
        for run in group:                                # one without a teacher goes with the first of the others
            teacher = run.cfg.model.get('teacher_checkpoint')
            name = f'{key} {teachers[:1] if teacher is None else [teacher]}'
            found.setdefault(hashlib.sha256(name.encode()).hexdigest()[:12], []).append(run)
    return found


def build(runs: list[Run], loader: DataLoader) -> list[Student]:
    """The students of ``runs``; one that is refused ends its own run, no others."""
    students, answers = [], None
    for run in runs:
        try:
            students.append(Student(run, answers, loader))
        except InputError as error:
            run.failure = str(error)
        else:
            answers = answers or students[-1].answers
    return students


def go_on(students: list[Student], file: Path) -> tuple[list[Student], int, float, list[dict]]:
    """From where ``file`` ends, if it is there: the students still in the training, epochs done, seconds gone, and the
    conditions of the processes before.

    Raises InputError where it is not of these students.
    """
    if not file.exists():
        return students, 0, 0.0, []
    state = safe_load(file)
    for student in students:
        student.run.failure = state['failed'].get(student.run.name)
    students = [student for student in students if not student.run.failure]
    names = {student.run.name for student in students}
    left = {name for name, saved in state['students'].items() if not Path(saved['checkpoint']).exists()} - names
    missing = names - state['students'].keys()
    if not names & state['students'].keys() and not left:
        return students, 0, 0.0, []                      # all that were in it had finished
    for some, what in ((missing, 'is of a training without'), (left, 'is of a training with')):
        if some:
            raise InputError(f'{file} {what} {", ".join(sorted(some))}: name the same cells again, or move it away')
    for student in students:
        student.load(state['students'][student.run.name], file)
    return students, state['epoch'], state['seconds'], state['abouts']


def train_in_step(runs: list[Run], file: Path, console: Console) -> None:
    """Trains all ``runs`` of a group; after each epoch ``file`` has what the same call needs to go on."""
    cfg, start = runs[0].cfg, time.time()
    torch.backends.cudnn.benchmark = cfg.env_cfg.cudnn_benchmark
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=cfg.randomness.seed)
    tests = Runner.build_dataloader(cfg.val_dataloader)
    students, epoch, before, abouts = go_on(build(runs, loader), file)
    abouts.append(about_this_run())
    names, answers = [each.run.name for each in students], next((each.answers for each in students if each.answers), None)
    step = (SideBySide if torch.cuda.is_available() else OneByOne)(students, answers)
    columns = (TextColumn('{task.description}'), BarColumn(), TextColumn('{task.completed:.0f} / {task.total:.0f}'),
               TimeElapsedColumn(), TextColumn('left'), TimeRemainingColumn())
    with Progress(*columns, console=console, speed_estimate_period=86_400) as progress:
        total = max((each.run.epochs for each in students), default=0) * len(loader)
        bar = progress.add_task(f'{len(students)} in step, batches', total=total, completed=epoch * len(loader))
        while students:
            seed_all(cfg.randomness.seed, epoch, 0)
            loader.sampler.set_epoch(epoch)
            MessageHub.get_current_instance().update_info('epoch', epoch)
            preprocess = students[0].model.data_preprocessor
            step.begin_epoch(students)
            for data in loader:
                step(students, preprocess(data, training=True))
                progress.advance(bar)
            epoch, seconds = epoch + 1, before + time.time() - start
            end_epoch(students, epoch, tests, step, console)
            students = [student for student in students if not student.run.failure]
            for student in [student for student in students if student.run.epochs == epoch]:
                said = student.finish(abouts, seconds, names, loader.dataset.metainfo)
                console.print(f'{student.run.name}: {said}', highlight=False, markup=False, soft_wrap=True)
                students.remove(student)
            write(dict(epoch=epoch, seconds=seconds, abouts=abouts, students={each.run.name: each.state() for each in students},
                       failed={run.name: run.failure for run in runs if run.failure}), file)
    file.unlink(missing_ok=True)
    gc.collect()                                         # graphs and their memory


def end_epoch(students: list[Student], epoch: int, tests: DataLoader, step: OneByOne, console: Console) -> None:
    """Tests all, tells how well they do, moves their learning rates; a run that has lost its numbers has failed."""
    right, preprocess = [0] * len(students), students[0].model.data_preprocessor
    for student in students:
        student.model.eval()
    for data in tests:
        right = [number + more for number, more in zip(right, step.right(students, preprocess(data)))]
    for student, number in zip(students, right):
        student.end_epoch(100 * int(number) / len(tests.dataset))
        means = student.log[-1]
        if not student.is_finite():
            student.run.failure = f'loss or weights are not finite after epoch {epoch}'
        elif epoch > 1 and 'score_positive' in means:
            if warning := warning_of(means['score_positive'], means['score_negative']):
                console.print(f'{student.run.name}: {warning}', highlight=False, markup=False, soft_wrap=True)
        student.model.train()
    console.print(f'epoch {epoch}: ' + ', '.join(f'{each.run.name} {each.curve[-1]:.2f}' for each in students),
                  highlight=False, markup=False, soft_wrap=True)


def carry_out_in_step(runs: list[Run], folder: Path, console: Console) -> None:
    """Trains ``runs``, a group after the other; what goes wrong with one ends no others.

    What another process is training, or has trained meanwhile, is left to it: the same command in a second shell takes the
    next seed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for run in runs:
        if run.needs and run.needs.failure:
            run.failure = f'{run.needs.name} failed'
    MMLogger.get_instance('in_step').setLevel('WARNING')                 # without a line for each parameter's initialisation
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        for name, group in groups([run for run in runs if not run.failure]).items():
            try:
                with locked(folder / f'{name}.pth'):
                    if left := [run for run in group if reached(run.folder) < run.epochs]:
                        train_in_step(left, folder / f'{name}.pth', console)
            except BeingTrained as error:
                console.print(f'{error}: left to it', highlight=False, markup=False, soft_wrap=True)
