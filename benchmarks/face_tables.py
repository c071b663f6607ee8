"""Tables V, VI and VII of the paper, faces of 16 pixels, as trained here: the runs of ``python tools/reproduce.py table5``.

All three are of the same networks, trained on CASIA-WebFace; a table is an evaluation of them by one of the tools for faces.
Two tables that the paper does not have are of networks trained on LFW: ``lfw`` and ``orl``.
"""
from typing import NamedTuple

import reproduced
from paper_tables import NOT_AS_PUBLISHED, label
from reproduced import TEACHER_ALONE, Entry, MarkdownTable

PIXELS, SCHEDULE = 16, 'face_35e'
# By training data. The student sees the 16 pixels as they are, or scaled up again to the pixels of its teacher.
PAIRS = dict(webface=[('iresnet50', 'resnet18'), ('iresnet50', 'resnet18_restored')],
             lfw=[('iresnet18', 'resnet18'), ('iresnet18', 'resnet18_restored')])
METHODS = dict(webface=('student', 'naive', 'kd', 'crd', 'skd', 'horkd', 'crrcd'),
               lfw=('teacher', 'naive', 'student', 'kd', 'crrcd'))
PIXELS_OF_THE_TEACHER = dict(webface=112, lfw=64)
LFW = {'data/lfw/pairs.txt': "LFW's list of pairs", 'data/lfw/lfw': "LFW's faces"}
TRAINING_DATA = {'data/casia_webface': 'CASIA-WebFace', **LFW,
                 'data/tinyface/Training_Set': "TinyFace's training set"}
NAIVE = 'teacher on 16 pixels scaled up'

class FaceTable(NamedTuple):
    """What to call, with which data, and which of its numbers stand in the table.

    ``numbers``: title of a column -> key in the tool's JSON, a percentage. ``paper``: method -> the paper's number for each
    column, None where it has none; a method without is left out. ``marked``: do ours and the paper's compare? ``further``:
    the config of a training by which all students go on before this test. ``trained_on``: as configs/face names it.
    """
    title: str
    tool: str
    arguments: list[str]
    data: dict[str, str]                                 # path -> what it is
    numbers: dict[str, str]
    paper: dict[str, list[float | None]]
    marked: bool
    note: str
    further: str | None = None
    trained_on: str = 'webface'

    def methods(self) -> list[str]:
        return list(METHODS[self.trained_on])

    def cells(self) -> list[tuple[str, tuple[str, str]]]:
        return [(method, pair) for method in self.methods() for pair in PAIRS[self.trained_on]]


FACE_TABLES = dict(
    table5=FaceTable(
        'Table V: face verification on LFW', 'verify_faces.py', ['--pairs', 'data/lfw/pairs.txt', '--images', 'data/lfw/lfw'],
        LFW, {'accuracy': 'accuracy'}, dict(naive=[92.30], skd=[85.87], horkd=[90.03], crrcd=[95.25]), True,
        'Accuracy in percent, mean of the ten folds. Some people of LFW are in CASIA-WebFace, too, as in most published '
        'numbers.'),
    table6=FaceTable(
        'Table VI: face identification on UCCS', 'linear_probe.py', ['--dataset', 'uccs', '--data-root', 'data/uccs'],
        {'data/uccs': '180 people of UCCS'},
        {'accuracy': 'mean'}, dict(naive=[88.73], skd=[67.25], horkd=[92.11], crrcd=[97.27]), False,
        'Accuracy in percent of a new classifier on the frozen network, mean of three. The paper drew 180 people at random and '
        'does not list them, so its numbers are of others and carry no mark.'),
    table7=FaceTable(
        'Table VII: face retrieval on TinyFace', 'identify_faces.py', ['--tinyface', 'data/tinyface'],
        {'data/tinyface': 'TinyFace'},
        {name: name for name in ('rank-1', 'rank-10', 'rank-20', 'mAP')},
        dict(naive=[26, 34, 37, None], crrcd=[35, 47, 50, None]), False,
        "In percent; the paper prints two digits, 0.35 for 35. All but the teacher have been trained further, on TinyFace's "
        'training set, as the paper says, but not how: so its numbers carry no mark.', 'face/resnet18_tinyface_16px'),
    lfw=FaceTable(
        'LFW: verification of people held out', 'verify_faces.py',
        ['--folds', '8', '9', '--pairs', 'data/lfw/pairs.txt', '--images', 'data/lfw/lfw'],
        LFW, {'accuracy': 'accuracy', 'equal error rate': 'eer'}, {}, False,
        'In percent, on the 1,200 pairs of folds 9 and 10, whose people were left out of the training; accuracy is the mean '
        'of the two folds, each at the threshold that suits the other best. One standard error of 1,200 pairs is about a '
        'point.', trained_on='lfw'),
    orl=FaceTable(
        'ORL: retrieval', 'identify_faces.py', ['--orl', 'data/orl/orl'], {'data/orl/orl': 'ORL'},
        {name: name for name in ('rank-1', 'rank-10', 'rank-20', 'mAP')}, {}, False,
        'In percent: the first image of each of the 40 people is the gallery, the 360 others are searched for in it. The '
        'networks are those trained on LFW, whose crops are tighter: here whole heads are squeezed to a square. One standard '
        'error of 360 probes is up to 2.6 points.', trained_on='lfw'))


def title_of(method: str, pair: tuple[str, str]) -> str:
    """Of a row."""
    name = NAIVE if method == 'naive' else label(method) + (' †' if method in NOT_AS_PUBLISHED else '')
    return name + (', scaled up' if pair[1].endswith('_restored') and method not in TEACHER_ALONE else '')


class FaceResults(MarkdownTable):
    """One of the tables with one recipe: all its results."""
    tables, full = FACE_TABLES, f'{PIXELS}px__{SCHEDULE}'

    def entries(self, method: str, pair: tuple[str, str]) -> list[Entry]:
        """Of a row, one for each column."""
        record = self.of.get((method, reproduced.pair_name(method, pair)))
        runs = [seed['evaluation'] for seed in record['seeds'].values()] if record else []
        paper = self.table.paper.get(method, [None] * len(self.table.numbers))
        comparable = self.table.marked and '_in_' not in self.recipe
        return [Entry([run[key] for run in runs], number, comparable, True)
                for key, number in zip(self.table.numbers.values(), paper, strict=True)]

    def notes(self) -> list[str]:
        """What has to be known beside the numbers."""
        different = '; '.join(f'{label(method)}, {why}' for method, why in NOT_AS_PUBLISHED.items()
                              if method in self.table.methods())
        size = PIXELS_OF_THE_TEACHER[self.table.trained_on]
        notes = [f'{self.table.note} Mean ± standard deviation of n seeds of the training. The student, ResNet18, sees 16 '
                 f'pixels, or the same scaled up to {size}.']
        if self.table.paper:
            notes.append("The paper's teacher is called ResNet50, ours is IResNet50. Beside the teacher on small images stands "
                         "the paper's ArcFace, whose training it does not describe.")
        else:
            notes.append(f'Not of the paper. The teacher is IResNet18 on {size} pixels.')
        notes.append(f'† Not as published: {different}.')
        if '_in_' in self.recipe:
            notes.insert(1, 'The schedule is shortened' + (': nothing here is comparable with the paper.' if self.table.paper
                                                          else '.'))
        return notes + reproduced.training_notes(self.records)

    def markdown(self) -> str:
        lines = [f'### {self.table.title}, {reproduced.length(self.recipe)}', '', f'| | {" | ".join(self.table.numbers)} |',
                 '|---' * (len(self.table.numbers) + 1) + '|']
        rows = {title_of(method, pair): self.entries(method, pair) for method, pair in self.table.cells()}
        lines += [f'| {name} | ' + ' | '.join('<br>'.join(entry.lines()) for entry in entries) + ' |'
                  for name, entries in rows.items()]
        return '\n'.join([*lines, '', *(f'{note}  ' for note in self.notes()), ''])
