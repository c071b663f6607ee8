"""Table III of the paper, SVHN at 8 pixels, and the same of CIFAR-100 and TinyImageNet at 8 or 16, as trained here: the runs of
``python tools/reproduce.py table3``, ``cifar100`` and ``tinyimagenet``.

Every network is tested on small images of other kinds than those of its training, too.
"""
from functools import cache
from statistics import mean
from typing import NamedTuple

import reproduced
import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.registry import DefaultScope
from paper_tables import NOT_AS_PUBLISHED
from reproduced import Entry, MarkdownTable

from mmcrrcd.config import parse_config
from mmcrrcd.evaluation.embeddings import Classifier, accuracy, load_classifier, own_images
from mmcrrcd.registry import DATASETS, MODELS

SCHEDULE, PIXELS = 'paper_35e', 8                        # of the configs
METHODS = dict(student='student alone', kd='KD (1 CE + 0.5 KD)', crrcd='CRRCD †')
RESTORED = '_restored'                                   # end of the name of a student that sees the small images scaled up
REDUCTIONS = {                                           # the first is that of the training
    'bilinear, antialiased': dict(interpolation='bilinear', antialias=True),
    'bicubic, antialiased': dict(interpolation='bicubic', antialias=True),
    'area': dict(interpolation='area', antialias=True),
    'bilinear': dict(interpolation='bilinear', antialias=False),
    'nearest': dict(interpolation='nearest', antialias=True)}


class LowTable(NamedTuple):
    """``data`` as configs/ name it; ``side``: pixels of its images; ``paper``: accuracy in percent by what the paper says."""
    title: str
    data: str
    side: int
    teachers: tuple[str, ...]                            # of the student VGG8
    paper: dict[str, float]

    def methods(self) -> list[str]:
        return list(METHODS)

    def pairs(self, teacher: str) -> list[tuple[str, str]]:
        """The student that sees small images as they are, and the one that sees them scaled up."""
        return [(teacher, 'vgg8'), (teacher, f'vgg8{RESTORED}')]

    def cells(self) -> list[tuple[str, tuple[str, str]]]:
        return [(method, pair) for teacher in self.teachers for pair in self.pairs(teacher) for method in METHODS]


LOW_TABLES = dict(
    table3=LowTable('Table III: SVHN', 'svhn', 32, ('resnet56', ), {
        'RPC Nets': 56.89, 'SICNN': 81.53, 'DirectCapsNet': 84.51, 'CSRIP': 84.61, 'DeriveNet': 87.85, 'CRRCD': 89.33}),
    cifar100=LowTable('CIFAR-100', 'cifar100', 32, ('resnet56', 'vgg8'), {}),
    tinyimagenet=LowTable('TinyImageNet', 'tinyimagenet', 64, ('resnet18', 'vgg8'), {}))


def over_reductions(classifier: Classifier, config: str, pixels: int, scale_to: int | None) -> dict[str, float]:
    """Accuracy in percent on the config's test images reduced to ``pixels`` in each way, by its name.

    ``scale_to``: pixels to which the small images are scaled again, always bilinearly; None for as they are.
    """
    data = own_images(config)
    return {name: accuracy(classifier.at(pixels, scale_to, restore=False, **how), data, f'{name}, {pixels} pixels')
            for name, how in REDUCTIONS.items()}


def of_the_teacher(config: str, checkpoint: str, pixels: int, side: int) -> dict:
    """Accuracy in percent of the teacher of ``config`` on its own ``side`` ('full'), and on small images scaled up to that."""
    teacher = load_classifier(config, checkpoint, teacher=True)
    return dict(full=accuracy(teacher, own_images(config), f'teacher, {side} pixels'),
                reductions=over_reductions(teacher, config, pixels, side))


def images(cfg: Config) -> dict[str, int]:
    """How many a config trains on and is tested on: a data set may be there in part."""
    loaders = dict(train=cfg.train_dataloader, test=cfg.val_dataloader)
    return {name: len(DATASETS.build(loader.dataset)) for name, loader in loaders.items()}


@cache
def multiply_adds(config: str, network: str, pixels: int) -> str:
    """Millions of them in convolutions and linear layers for an image of so many pixels a side.

    ``config`` is the text of a training's, ``network`` its 'student' or 'teacher'.
    """
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(parse_config(config, 'a result').model[network]).eval()
    found = FlopAnalyzer(model, torch.zeros(1, 3, pixels, pixels))
    operators = found.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
    return f'{(operators["conv"] + operators["linear"]) / 1e6:.1f}'


def entry(numbers: list[float]) -> str:
    """What stands in a cell."""
    return Entry(numbers, None, False, True).lines()[0]


class LowResults(MarkdownTable):
    """One of the tables with one recipe: all its results."""
    tables, full = LOW_TABLES, f'{PIXELS}px__{SCHEDULE}'

    def teachers(self, name: str) -> list[dict]:
        """What the results say of the teachers of this name, mostly one."""
        pairs = {'_'.join(pair) for pair in self.table.pairs(name)}
        return list({record['teacher']['sha256']: record['teacher'] for record in self.records
                     if record['teacher'] and record['pair'] in pairs}.values())

    def rows(self, teacher: str) -> dict[str, list[str]]:
        """By the name of a row: the accuracies by the reduction, millions of multiply-adds, and minutes of the training."""
        scaled = [entry([found['reductions'][name] for found in self.teachers(teacher)]) for name in REDUCTIONS]
        taught = next((record['config'] for record in self.records if record['teacher']
                       and record['pair'] in {'_'.join(pair) for pair in self.table.pairs(teacher)}), None)
        work = multiply_adds(taught, 'teacher', self.table.side) if taught else '–'
        rows = {'teacher, on small images scaled up': [*scaled, work, '–']}
        for method, title in METHODS.items():
            for pair in self.table.pairs(teacher):
                record = self.of.get((method, reproduced.pair_name(method, pair)))
                seeds = list(record['seeds'].values()) if record else []
                restored = pair[1].endswith(RESTORED)
                sees = self.table.side if restored else reproduced.pixels(self.recipe)
                cost = ['–', '–']
                if seeds:
                    minutes = mean(seed['seconds'] for seed in seeds) / 60
                    cost = [multiply_adds(record['config'], 'student', sees), f'{minutes:.0f}']
                rows[title + (', scaled up' if restored else '')] = [
                    *(entry([seed['reductions'][name] for seed in seeds]) for name in REDUCTIONS), *cost]
        return rows

    def notes(self) -> list[str]:
        """What has to be known beside the numbers."""
        notes = ['Test accuracy in percent at the last epoch, mean ± standard deviation of n seeds, on test images reduced in '
                 f'these ways; all training is with the first. Scaled up: to {self.table.side} pixels again, bilinearly. '
                 'Multiply-adds are those of an image. Minutes are those of the training, of students in step of all together.']
        for train, test in sorted({(seed['images']['train'], seed['images']['test'])
                                   for record in self.records for seed in record['seeds'].values()}):
            notes.append(f'{train:,} training images, {test:,} test images.')
        if self.table.paper:
            said = ', '.join(f'{name} {number:.2f}' for name, number in self.table.paper.items())
            notes.append(f'The paper has, at 8 pixels and with its full schedule: {said}. It does not say how it reduces.')
        else:
            notes.append('Not of the paper.')
        if '_in_' in self.recipe:
            notes.append('The schedule is shortened' + (': not comparable with the paper.' if self.table.paper else '.'))
        notes.append(f'† Not as published: {NOT_AS_PUBLISHED["crrcd"]}.')
        return notes + reproduced.training_notes(self.records)

    def markdown(self) -> str:
        lines = [f'### {self.table.title}, the student sees {reproduced.pixels(self.recipe)} pixels, '
                 f'{reproduced.length(self.recipe)}', '']
        for teacher in [name for name in self.table.teachers if self.teachers(name)] or self.table.teachers[:1]:
            full = entry([found['full'] for found in self.teachers(teacher)])
            lines += [f'{teacher} teaches vgg8. On all {self.table.side} pixels the teacher has: {full}.', '',
                      f'| | {" | ".join(REDUCTIONS)} | M multiply-adds | minutes |', '|---' * (len(REDUCTIONS) + 3) + '|']
            lines += [f'| {name} | {" | ".join(cells)} |' for name, cells in self.rows(teacher).items()]
            lines.append('')
        return '\n'.join([*lines, *(f'{note}  ' for note in self.notes()), ''])
