"""Table IV of the paper, features of CIFAR-100 on STL-10 and TinyImageNet, as trained here: the runs of
``python tools/reproduce.py table4_stl10`` and ``table4_tinyimagenet``. (Other probes: probes.py.)
"""
from typing import NamedTuple

import reproduced
from paper_tables import NOT_AS_PUBLISHED, label
from recipes import Recipe
from reproduced import Entry, MarkdownTable

PAIR = 'wrn40_2', 'shufflenetv1'
CLASSIFIERS = 3                                          # of each network


class TransferTable(NamedTuple):
    """``images``: how many of ``dataset`` the official classifiers are trained and tested on. ``paper``: method -> accuracy in
    percent.
    """
    title: str
    dataset: str
    images: tuple[int, int]
    paper: dict[str, float]

    def methods(self) -> list[str]:
        return [method for method in self.paper if method != 'teacher']

    def cells(self) -> list[tuple[str, tuple[str, str]]]:
        return [(method, PAIR) for method in self.methods()]


METHODS = 'student', 'teacher', 'kd', 'fitnet', 'at', 'crd', 'sskd', 'crrcd'
TRANSFER_TABLES = dict(
    table4_stl10=TransferTable('Table IV: CIFAR-100 → STL-10', 'stl10', (5_000, 8_000), dict(
        zip(METHODS, (71.58, 71.01, 73.25, 73.77, 73.47, 74.44, 74.74, 75.15)))),
    table4_tinyimagenet=TransferTable('Table IV: CIFAR-100 → TinyImageNet', 'tinyimagenet', (100_000, 10_000), dict(
        zip(METHODS, (32.43, 27.74, 32.05, 33.28, 33.75, 34.30, 34.54, 35.17)))))


class TransferResults(MarkdownTable):
    """One of the tables with one recipe: all its results."""
    tables, full = TRANSFER_TABLES, Recipe().label()

    def rows(self) -> dict[str, tuple[list[float], list[float]]]:
        """By the method: accuracies on the table's data and on CIFAR-100, one a seed."""
        teachers = {record['teacher']['sha256']: record['teacher'] for record in self.records if record['teacher']}.values()
        rows = dict(teacher=([found['probe']['mean'] for found in teachers],
                             [found['accuracy'] for found in teachers if found['accuracy'] is not None]))
        for method in self.table.methods():
            record = self.of.get((method, reproduced.pair_name(method, PAIR)))
            seeds = list(record['seeds'].values()) if record else []
            rows[method] = [seed['probe']['mean'] for seed in seeds], [seed['last'] for seed in seeds]
        return {method: rows[method] for method in self.table.paper}

    def images(self) -> set[tuple[int, int]]:
        """For training and test of the classifiers, mostly one pair."""
        return {(seed['probe']['images']['train'], seed['probe']['images']['test'])
                for record in self.records for seed in record['seeds'].values()}

    @property
    def comparable(self) -> bool:
        """With the paper's numbers."""
        return '_in_' not in self.recipe and self.images() <= {self.table.images}

    def notes(self) -> list[str]:
        """What has to be known beside the numbers."""
        pixels = reproduced.pixels(self.recipe)
        notes = ['Accuracy in percent at the last epoch: of a linear classifier on the frozen embeddings, mean of '
                 f'{CLASSIFIERS}, and of the network itself on CIFAR-100; mean ± standard deviation of n seeds of the '
                 'training.']
        for train, test in sorted(self.images()):
            notes.append(f'{self.table.dataset}: {train:,} training images, {test:,} test images.')
        if pixels != 32:
            notes.append("The paper's numbers are for 32 pixels, so they are left out.")
        elif not self.comparable:
            notes.append("The paper's numbers are from full schedules and all images: beside these they are not comparable.")
        else:
            notes.append("▲ better than the paper's number, ▼ worse.")
        notes.append(f'† Not as published: {NOT_AS_PUBLISHED["crrcd"]}.')
        return notes + reproduced.training_notes(self.records)

    def markdown(self) -> str:
        lines = [f'### {self.table.title}. {" → ".join(PAIR)}, the student sees {reproduced.pixels(self.recipe)} pixels, '
                 f'{reproduced.length(self.recipe)}', '', f'| | {self.table.dataset} | CIFAR-100 |', '|---|---|---|']
        at_32 = reproduced.pixels(self.recipe) == 32
        for method, (probed, own) in self.rows().items():
            paper = self.table.paper[method] if at_32 else None
            cell = '<br>'.join(Entry(probed, paper, self.comparable, True).lines())
            dagger = ' †' if method in NOT_AS_PUBLISHED else ''
            lines.append(f'| {label(method)}{dagger} | {cell} | {Entry(own, None, False, True).lines()[0]} |')
        return '\n'.join([*lines, '', *(f'{note}  ' for note in self.notes()), ''])

