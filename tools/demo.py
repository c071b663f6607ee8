"""The whole story in a few minutes, on generated images: a teacher at 32×32 px, the same student at 8×8 px three ways.

``python tools/demo.py`` trains from the four configs in configs/demo, prints the table and draws the picture.
"""
import mmcrrcd.interrupt  # noqa: F401  first, as the others take seconds
import argparse
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from mmcrrcd.command_line import check_output, one_line_errors
from mmcrrcd.datasets import ImageArrays, downsample
from mmcrrcd.engine.launch import build_runner
from mmcrrcd.engine.work_dir import one_training
from mmcrrcd.registry import DATASETS
from mmcrrcd.visualization import draw_answers
from mmcrrcd.visualization.picture import save_picture

CONFIGS = Path(__file__).parents[1] / 'configs' / 'demo'
TRAININGS = {'teacher': 'teacher', 'student_only': 'student-only baseline', 'kd': 'student, KD', 'crrcd': 'student, CRRCD'}
SHOWN = 24                                               # images in the picture: the first of the test set


class Result(NamedTuple):
    """What a training came to; ``answers`` are the classes of the first ``SHOWN`` test images."""
    name: str
    resolution: int
    parameters: int
    accuracy: float
    seconds: float
    answers: list[int]


class ProgressHook(Hook):
    """Moves one bar: epochs, and the test accuracy after each."""

    def __init__(self, progress: Progress, task: int):
        self.progress, self.task = progress, task

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.progress.update(self.task, completed=(runner.iter + 1) / len(runner.train_dataloader))

    def after_val_epoch(self, runner, metrics=None) -> None:
        self.progress.update(self.task, accuracy=f'{metrics["accuracy/top1"]:5.1f} %')


def load_config(name: str, work_dir: Path, epochs: int | None) -> Config:
    cfg = Config.fromfile(CONFIGS / f'{name}.py')
    cfg.work_dir = str(work_dir / name)
    if 'teacher_checkpoint' in cfg.model:
        cfg.model.teacher_checkpoint = str(work_dir / 'teacher')
    if epochs:
        cfg.train_cfg.max_epochs = epochs
    return cfg


def train(cfg: Config, name: str, progress: Progress, task: int) -> Result:
    """One training; mmengine's log goes to its file in the work directory, not to the terminal."""
    with (one_training(cfg.work_dir), open(os.devnull, 'w') as nowhere, redirect_stdout(nowhere),
          redirect_stderr(nowhere)):
        runner = build_runner(cfg)
        runner.register_hook(ProgressHook(progress, task))
        progress.start_task(task)
        start = perf_counter()
        model = runner.train()
        seconds = perf_counter() - start
        test = runner.val_dataloader.dataset
        with torch.no_grad():
            answers = model.eval().val_step(test.__getitems__(list(range(SHOWN))))[0]['logits'].argmax(1).tolist()
    parameters = sum(p.numel() for p in model.student.parameters())
    accuracy = runner.message_hub.get_scalar('val/accuracy/top1').current()
    return Result(name, model.data_preprocessor.resolution or test.images.shape[1], parameters, accuracy, seconds, answers)


def tabulate(results: list[Result]) -> Table:
    table = Table('network', title='Letters and digits, 40 classes')
    for heading in ('pixels', 'parameters', 'accuracy', 'training time'):
        table.add_column(heading, justify='right')
    for result in results:
        table.add_row(result.name, f'{result.resolution} x {result.resolution}', f'{result.parameters:,}',
                      f'{result.accuracy:.2f} %', f'{result.seconds:.0f} s')
    return table


def draw(results: list[Result], test: ImageArrays):
    """The first images of the test set with every network's answer."""
    classes, images = test.metainfo['classes'], test.images[:SHOWN]
    low = downsample(images.permute(0, 3, 1, 2), min(result.resolution for result in results)).permute(0, 2, 3, 1)
    answers = {f'{result.name} ({result.accuracy:.1f} %)': [classes[k] for k in result.answers] for result in results}
    return draw_answers(images.numpy(), low.numpy(), [classes[k] for k in test.labels[:SHOWN]], answers,
                        title=f'The first {SHOWN} test images and the answers; in brackets the accuracy on all {len(test):,}')


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description='Train a teacher and three small students on generated images.')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'))
    parser.add_argument('--epochs', type=int, help='of each training (default: as in the configs)')
    args = parser.parse_args(argv)
    with one_line_errors():
        console, picture = Console(file=sys.stdout), args.work_dir / 'answers.png'       # of now: in training it is redirected
        check_output(picture)
        configs = {name: load_config(name, args.work_dir, args.epochs) for name in TRAININGS}
        with console.status('Drawing the images'):           # once, for all four trainings
            _, test = [DATASETS.build(configs['teacher'][f'{split}_dataloader'].dataset) for split in ('train', 'val')]
        columns = (TextColumn('{task.description:15}'), BarColumn(), TextColumn('epoch {task.completed:4.1f} / {task.total}'),
                   TextColumn('accuracy {task.fields[accuracy]:>7}'), TimeElapsedColumn(), TextColumn('left'),
                   TimeRemainingColumn())
        with Progress(*columns, console=console, redirect_stdout=False, redirect_stderr=False) as progress:
            tasks = {name: progress.add_task(TRAININGS[name], start=False, total=cfg.train_cfg.max_epochs, accuracy='')
                     for name, cfg in configs.items()}
            results = [train(cfg, TRAININGS[name], progress, tasks[name]) for name, cfg in configs.items()]
        console.print(tabulate(results))
        save_picture(draw(results, test), picture, dpi=100)
        console.print(f'Picture: {picture}', soft_wrap=True)


if __name__ == '__main__':
    main()
