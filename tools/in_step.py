"""Several trainings in one process, in step: the same batches for all, and a teacher that is asked once for all of them.

Where a teacher's answers cost more than a small student this saves most of the time, and the students of a table differ in
their method alone. Each has the weights, losses, optimiser and schedules that its config gives it.
"""
import hashlib
import json
import os
import time
from pathlib import Path

import torch
from mmengine.device import get_device
from mmengine.logging import MessageHub, MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope
from mmengine.runner import Runner, set_random_seed
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from runs import Run, reached
from torch import Tensor

from mmcrrcd.checkpoint import safe_load
from mmcrrcd.engine import seed_all
from mmcrrcd.environment import about_this_run
from mmcrrcd.errors import InputError
from mmcrrcd.models import Distiller
from mmcrrcd.registry import MODELS
from mmcrrcd.structures import Batch


class Answers:
    """What a frozen teacher says of the images of a batch, computed for the first who asks, kept for the others."""

    def __init__(self, model: Distiller):
        self.teacher, self.teach, self.kept = model.teacher, model.teach, {}

    def __call__(self, images: Tensor):
        if id(images) not in self.kept:
            self.kept[id(images)] = images, self.teach(images)
        return self.kept[id(images)][1]


class Student:
    """A run's model, optimiser and schedules, and its test accuracy after each epoch.

    ``answers`` are those of a teacher that another student has loaded; None for the first.
    """

    def __init__(self, run: Run, answers: Answers | None):
        self.run, self.curve, self.loss = run, [], 0.0
        model = run.cfg.model.to_dict()
        self.answers = answers if model.get('teacher_checkpoint') else None
        if self.answers:
            model.update(teacher=answers.teacher, teacher_checkpoint=None)
        set_random_seed(run.cfg.randomness.seed)
        self.model = MODELS.build(model)
        self.model.init_weights()
        self.model.to(get_device()).train()
        if run.cfg.model.get('teacher_checkpoint'):
            self.answers = self.answers or Answers(self.model)
            self.model.teach = self.answers
        self.wrapper = build_optim_wrapper(self.model, run.cfg.optim_wrapper)
        schedules = run.cfg.param_scheduler if isinstance(run.cfg.param_scheduler, list) else [run.cfg.param_scheduler]
        self.schedules = [PARAM_SCHEDULERS.build(dict(schedule, optimizer=self.wrapper)) for schedule in schedules]

    def step(self, batch: dict) -> None:
        """Learns from a batch that the preprocessor has been through."""
        with self.wrapper.optim_context(self.model):
            loss, _ = self.model.parse_losses(self.model(**batch, mode='loss'))
        self.wrapper.update_params(loss)
        self.loss = self.loss + loss.detach()            # of the epoch

    @torch.no_grad()
    def right(self, batch: dict) -> Tensor:
        """How many images of a test batch it gets right."""
        answers = self.model(batch['inputs'], mode='tensor').argmax(1)
        return (answers == Batch.of(batch['data_samples']).labels).sum()

    def is_finite(self) -> bool:
        """Are the loss of this epoch and the weights numbers?"""
        values = [torch.as_tensor(self.loss), *self.model.parameters()]
        return bool(torch.stack([value.detach().isfinite().all() for value in values]).all())

    def parts(self) -> list:
        return [self.model, self.wrapper, *self.schedules]

    def state(self) -> dict:
        return dict(config=self.run.cfg.pretty_text, curve=self.curve, parts=[part.state_dict() for part in self.parts()])

    def load(self, state: dict, file: Path) -> None:
        """Raises InputError where the state in ``file`` is of another config."""
        if state['config'] != self.run.cfg.pretty_text:
            raise InputError(f'{file} is of a training of {self.run.name} with other settings: finish that, or move it away')
        self.curve = state['curve']
        for part, saved in zip(self.parts(), state['parts'], strict=True):
            part.load_state_dict(saved)

    def finish(self, seconds: float, together: list[str]) -> str:
        """Leaves in the run's folder what a training by itself would: config, checkpoint, curve, conditions."""
        folder, epoch = self.run.folder, self.run.epochs
        folder.mkdir(parents=True, exist_ok=True)
        self.run.cfg.dump(folder / 'config.py')
        write(dict(state_dict=self.model.state_dict(), meta=dict(epoch=epoch, cfg=self.run.cfg.pretty_text)),
              folder / f'epoch_{epoch}.pth')
        (folder / 'last_checkpoint').write_text(str(folder / f'epoch_{epoch}.pth'))
        rows = (json.dumps({'accuracy/top1': accuracy, 'step': i}) + '\n' for i, accuracy in enumerate(self.curve, 1))
        (folder / 'evaluated.json').write_text(''.join(rows))
        about = about_this_run() | dict(seconds=seconds, in_step=together)
        (folder / 'about.jsonl').write_text(json.dumps(about) + '\n')
        self.run.finished = True
        return self.run.then()


def write(state: dict, file: Path) -> None:
    """Whole or not at all."""
    part = file.with_suffix('.part')
    torch.save(state, part)
    os.replace(part, file)


def groups(runs: list[Run]) -> dict[str, list[Run]]:
    """Those together that have data, batches, seed and resolution in common, and a name for each group.

    Raises InputError where a group has several teachers, or a run has been begun otherwise.
    """
    found = {}
    for run in runs:
        if reached(run.folder):
            raise InputError(f'{run.folder} has been begun by itself: let it go on without --in-step, or move it away')
        shared = [run.cfg.train_dataloader, run.cfg.randomness, run.cfg.model.data_preprocessor]
        name = hashlib.sha256(json.dumps(shared, default=str, sort_keys=True).encode()).hexdigest()[:12]
        found.setdefault(name, []).append(run)
    for group in found.values():
        teachers = {run.cfg.model.get('teacher_checkpoint') for run in group} - {None}
        if len(teachers) > 1:
            raise InputError(f'in step go the students of one teacher, these have {", ".join(sorted(teachers))}: name cells '
                             'of one pair with --cell')
    return found


def train_in_step(runs: list[Run], file: Path, console: Console) -> None:
    """Trains all ``runs`` of a group; after each epoch ``file`` has what the same call needs to go on."""
    students, answers = [], None
    for run in runs:
        students.append(Student(run, answers))
        answers = answers or students[-1].answers
    names, start, before = [run.name for run in runs], time.time(), 0.0
    epoch = 0
    if file.exists():
        state = safe_load(file)
        if missing := [name for name in names if name not in state['students']]:
            raise InputError(f'{file} is of a training without {", ".join(missing)}: leave them out, or move the file away')
        epoch, before = state['epoch'], state['seconds']
        for student in students:
            student.load(state['students'][student.run.name], file)
    cfg, preprocess = runs[0].cfg, students[0].model.data_preprocessor
    loader = Runner.build_dataloader(cfg.train_dataloader, seed=cfg.randomness.seed)
    tests = Runner.build_dataloader(cfg.val_dataloader)
    columns = (TextColumn('{task.description}'), BarColumn(), TextColumn('{task.completed:.0f} / {task.total:.0f}'),
               TimeElapsedColumn(), TextColumn('left'), TimeRemainingColumn())
    with Progress(*columns, console=console, speed_estimate_period=86_400) as progress:
        total = max(run.epochs for run in runs)
        bar = progress.add_task(f'{len(runs)} in step, batches', total=total * len(loader), completed=epoch * len(loader))
        while students:
            seed_all(cfg.randomness.seed, epoch)
            loader.sampler.set_epoch(epoch)
            MessageHub.get_current_instance().update_info('epoch', epoch)
            for data in loader:
                batch = preprocess(data, training=True)
                if answers:
                    answers.kept.clear()
                for student in students:
                    student.step(batch)
                progress.advance(bar)
            epoch += 1
            students = end_epoch(students, epoch, tests, preprocess, console)
            seconds = before + time.time() - start
            for student in [student for student in students if student.run.epochs == epoch]:
                console.print(f'{student.run.name}: {student.finish(seconds, names)}', highlight=False, markup=False,
                              soft_wrap=True)
                students.remove(student)
            states = {student.run.name: student.state() for student in students}
            write(dict(epoch=epoch, seconds=seconds, students=states), file)
    file.unlink()


def end_epoch(students: list[Student], epoch: int, tests, preprocess, console: Console) -> list[Student]:
    """Tests all, tells how well they do, and moves their learning rates; -> those that can go on."""
    right = [0] * len(students)
    for student in students:
        student.model.eval()
    for data in tests:
        batch = preprocess(data)
        right = [number + student.right(batch) for number, student in zip(right, students)]
    for student, number in zip(students, right):
        student.curve.append(100 * int(number) / len(tests.dataset))
        for schedule in student.schedules:
            schedule.step()
        if not student.is_finite():
            student.run.failure = f'loss or weights are not finite after epoch {epoch}'
        student.loss = 0.0
        student.model.train()
    console.print(f'epoch {epoch}: ' + ', '.join(f'{each.run.name} {each.curve[-1]:.2f}' for each in students),
                  highlight=False, markup=False, soft_wrap=True)
    return [student for student in students if not student.run.failure]


def carry_out_in_step(runs: list[Run], folder: Path, console: Console) -> None:
    """Trains ``runs``, a group after the other; a loss that is not finite ends its own run, no others."""
    folder.mkdir(parents=True, exist_ok=True)
    for run in runs:
        if run.needs and run.needs.failure:
            run.failure = f'{run.needs.name} failed'
    runs = [run for run in runs if not run.failure]
    MMLogger.get_instance('in_step').setLevel('WARNING')                 # without a line for each parameter's initialisation
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        for name, group in groups(runs).items():
            train_in_step(group, folder / f'{name}.pth', console)
