"""Trainings beside each other: what they reached, what their configs differ in, and their curves."""
import json
import math
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from matplotlib.figure import Figure
from mmengine.config import Config

from mmcrrcd.config import read_text, read_values, short_types
from mmcrrcd.engine.settings import TOP
from mmcrrcd.errors import InputError

from .markdown import markdown_table
from .style import label_lines, styles

NO_METRICS = {'data_time', 'time', 'step'}
NOT_COMPARED = {'experiment_name', 'launcher', 'resume', 'teacher_config', 'visualizer', 'work_dir'}
MISSING, LONGEST = '–', 40


@dataclass
class Training:
    """What the log of a work directory says.

    ``training``: the lines of its iterations; ``validation``: from the epoch (or iteration) to the metrics; ``settings``: its
    config, as far as a training reads it.
    """
    name: str
    training: list[dict]
    validation: dict[int, dict[str, float]]
    settings: dict

    @property
    def unit(self) -> str:
        """What ``validation`` counts."""
        return 'epoch' if any('epoch' in line for line in self.training) else 'iteration'

    @property
    def seconds(self) -> float:
        """Time in training iterations: the log has the mean time of an iteration in each line."""
        total, before = 0.0, 0
        for line in self.training:
            total, before = total + line.get('time', 0) * (line['step'] - before), line['step']
        return total

    def metrics(self) -> list[str]:
        """Their names, the first one first in the log."""
        return list(dict.fromkeys(name for values in self.validation.values() for name in values))

    def curve(self, metric: str) -> dict[int, float]:
        """From epoch, or iteration, to the value."""
        return {step: values[metric] for step, values in self.validation.items() if metric in values}


def lines_of(file: Path) -> list[dict]:
    """The lines of a ``scalars.json``; the last one may be half written. Raises InputError where it is something else."""
    found = []
    lines = file.read_text(encoding='utf-8', errors='replace').splitlines()
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
            if not isinstance(values, dict) or not isinstance(values.get('step'), int):
                raise ValueError('no step in it')
            found.append(values)
        except ValueError as error:
            if number < len(lines):
                raise InputError(f'{file}, line {number}, is no line of a log: {error}') from error
    return found


def read_training(folder: str | Path, name: str | None = None) -> Training:
    """The log in a work directory; that of a resumed training is in several parts, of which the later ones count.

    Raises:
        InputError: there is none.
    """
    parts = sorted(Path(folder).glob('*/vis_data/scalars.json'))
    if not parts:
        raise InputError(f'{folder} is no work directory of a training: it has no */vis_data/scalars.json')
    training, validation = {}, {}
    for part in parts:
        lines = lines_of(part)
        if first := next((line for line in lines if 'iter' in line), None):              # it went on from there
            training = {step: line for step, line in training.items() if step < first['step']}
            validation = {step: values for step, values in validation.items() if step < first.get('epoch', first['step'])}
        for line in lines:
            if 'iter' in line:
                training[line['step']] = line
            else:
                numbers = {key: value for key, value in line.items() if isinstance(value, (int, float))}
                validation[line['step']] = {key: value for key, value in numbers.items() if key not in NO_METRICS}
    config = parts[-1].with_name('config.py')
    settings = read_values(read_text(config), config) if config.is_file() else Config()
    settings = {key: short_types(value) for key, value in settings.to_dict().items() if key in TOP - NOT_COMPARED}
    return Training(name or Path(folder).name, list(training.values()), dict(sorted(validation.items())), settings)


def short(value) -> str:
    """A setting in a few letters: a part of the config by its type, a list of such by theirs."""
    if isinstance(value, dict) and 'type' in value:
        return str(value['type'])
    if isinstance(value, (list, tuple)) and any(isinstance(each, dict) for each in value):
        text = ', '.join(map(short, value))
    else:
        text = str(value).replace('|', '/').replace('\n', ' ')
    return text if len(text) <= LONGEST else text[:LONGEST - 3] + '...'


def differing(settings: list, name: str = '') -> dict[str, list[str]]:
    """From the full name of a setting to its value in each config, for those that are not the same in all.

    A part that one config does not have at all is one line.
    """
    if all(each == settings[0] for each in settings):
        return {}
    if not all(isinstance(each, dict) for each in settings):
        return {name: [short(each) for each in settings]}
    found = {}
    for key in dict.fromkeys(key for each in settings for key in each):
        found |= differing([each.get(key, MISSING) for each in settings], f'{name}.{key}' if name else str(key))
    return found


def comparison_table(trainings: list[Training], metric: str) -> str:
    """Markdown: a column for each training.

    The rows are the last and the best value of ``metric``, the epochs, the time in training, and each setting in which they
    differ.
    """
    def of(training: Training) -> list[str]:
        curve = training.curve(metric)
        if not curve:
            return [MISSING] * 2
        best = max(curve, key=lambda step: (curve[step], -step))
        return [f'{curve[max(curve)]:.2f}', f'{curve[best]:.2f} ({training.unit} {best})']

    last, best = zip(*map(of, trainings))
    done = [str(max((line.get('epoch', line['step']) for line in each.training), default=0)) for each in trainings]
    taken = [str(timedelta(seconds=round(each.seconds))) for each in trainings]
    rows = [[f'{metric}, last', *last], [f'{metric}, best', *best], [f'{trainings[0].unit}s done', *done],
            ['time in training', *taken]]
    rows += [[name, *values] for name, values in differing([each.settings for each in trainings]).items()]
    return markdown_table(['', *(each.name for each in trainings)], rows)


def draw_comparison(trainings: list[Training], metric: str) -> Figure:
    """``metric`` in validation and the loss in training, a line for each training."""
    figure = Figure(figsize=(11, 4.5), facecolor='white', layout='constrained')
    left, right = figure.subplots(1, 2)
    looks = styles(training.name for training in trainings)
    for training in trainings:
        curve, look = training.curve(metric), looks[training.name]
        left.plot(list(curve), list(curve.values()), marker='o' if len(curve) < 40 else None, markersize=3, **look)
        losses = [(line['step'], line['loss']) for line in training.training if math.isfinite(line.get('loss', math.nan))]
        if losses:
            right.plot(*zip(*losses), linewidth=1, label=training.name, **look)
    left.set(xlabel=trainings[0].unit, ylabel=f'{metric} in validation')
    right.set(xlabel='iteration', ylabel='loss in training')
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.spines[['top', 'right']].set_visible(False)
    label_lines(right, 3.6)
    return figure
