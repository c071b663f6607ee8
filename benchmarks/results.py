"""The main results as a table, a line for the README and curves.

They come from the runs of critic_forms.py with ``--purpose results`` and from those of ``tools/reproduce.py fig3`` of 30 epochs
and more. Of their forms those count that are the student alone, CRRCD with the package's default settings, with and without its
two losses, and KD with the weights of configs/baselines/kd.py, which are the field's.
"""
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev

import figure3
from critic_forms import DEFAULTS, RESULTS
from environment import conditions
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from paper_tables import PAPER_TABLES
from reproduced import origin

from mmcrrcd.config import parse_config
from mmcrrcd.errors import InputError

OWN_KD = f'KD (1 CE + {DEFAULTS["alpha"]} KD)'
FIELD_CLS_WEIGHT, FIELD_ALPHA = 0.1, 0.9
FIELD_KD = f'KD ({FIELD_CLS_WEIGHT} CE + {FIELD_ALPHA} KD)'
METHODS = ('student alone', OWN_KD, FIELD_KD, 'CRRCD without KD', 'CRRCD')
IN_FIGURE_3 = dict(student_alone='student alone', kd=OWN_KD, alpha_0='CRRCD without KD', default='CRRCD')
NEEDED = {'student alone', OWN_KD, 'CRRCD'}
SHORTEST = 30                                            # epochs; sweeps of Figure 3 that are shorter are studies
IN_THE_PAPER = {'teacher': 'teacher', 'student alone': 'student', FIELD_KD: 'kd', 'CRRCD': 'crrcd'}   # our row -> the paper's


def method(settings: dict) -> str | None:
    """Which row of the table a form is, None for one with other settings than the package's defaults."""
    alpha, beta = DEFAULTS['alpha'], DEFAULTS['beta']
    rows = {(1, 0, 0): 'student alone', (1, alpha, 0): OWN_KD, (FIELD_CLS_WEIGHT, FIELD_ALPHA, 0): FIELD_KD,
            (1, 0, beta): 'CRRCD without KD', (1, alpha, beta): 'CRRCD'}
    other = any(value != DEFAULTS[name] for name, value in settings.items() if name not in ('cls_weight', 'alpha', 'beta'))
    if isinstance(settings['beta'], list) or settings['beta'] and other:
        return None
    return rows.get((settings.get('cls_weight', 1), settings['alpha'], settings['beta']))


def of_the_paper(config: str) -> dict[str, float]:
    """Accuracy in percent by the name of our row: the paper's Table I or II, both networks at 32 pixels."""
    pair = config.removesuffix('_cifar100')
    return {name: table.rows[row][pair] for table in PAPER_TABLES.values() for name, row in IN_THE_PAPER.items()
            if pair in table.rows[row]}


def of_critic_forms() -> Iterator[tuple[dict, dict[str, list[float]]]]:
    """Each run, and its methods' curves: the test accuracies after each epoch."""
    for file in sorted(RESULTS.glob('*.json')):
        run = json.loads(file.read_text())
        if run['purpose'] == 'results':
            yield run, {method(form['settings']): [row['test'] for row in form['epochs']]
                        for form in run['forms'].values() if len(form['epochs']) == run['epochs']}


def of_figure_3() -> Iterator[tuple[dict, dict[str, list[float]]]]:
    """The same of each seed."""
    for sweeps in figure3.all_curves():
        records = {IN_FIGURE_3[name]: record for name, record in sweeps.of.items() if name in IN_FIGURE_3}
        if NEEDED <= set(records) and records['CRRCD']['epochs'] >= SHORTEST:
            about = records['CRRCD']
            if {record['teacher']['sha256'] for record in records.values()} != {about['teacher']['sha256']}:
                raise InputError(f'the runs of {sweeps.name()} are of several teachers: move some away')
            if about['teacher']['accuracy'] is None:
                raise InputError(f'the teacher of {sweeps.name()} was never tested')
            about = about | dict(config=f'{about["pair"]}_cifar100',
                                 milestones=parse_config(about['config'], 'a result').param_scheduler.milestones)
            for seed, result in sorted(about.pop('seeds').items(), key=lambda item: int(item[0])):
                yield about | result | dict(seed=int(seed)), {
                    name: record['seeds'][seed]['curve'] for name, record in records.items() if seed in record['seeds']}


def groups() -> dict[tuple, dict]:
    """(config, resolution, epochs, teacher, recipe) -> curves of each method, one a seed, and the runs they come from."""
    found = defaultdict(lambda: dict(curves=defaultdict(list), runs=[]))
    for run, curves in [*of_critic_forms(), *of_figure_3()]:
        if NEEDED <= set(curves):
            teacher = run['teacher']['accuracy'], run['teacher']['sha256']
            recipe = run['batch'], run['lr'], str(run['milestones']), run['precision']
            group = found[Path(run['config']).stem, run['resolution'] or 32, run['epochs'], teacher, recipe]
            group['runs'].append(run)
            for name in METHODS:
                if name in curves:
                    group['curves'][name].append(curves[name])
    return dict(sorted(found.items()))


def spread(values: list[float]) -> str:
    return f'{mean(values):.2f}' + (f' ± {stdev(values):.2f}' if len(values) > 1 else '')


def table() -> str:
    """Markdown: for each pair and resolution a row a method, and the conditions below it."""
    parts = []
    for (config, resolution, epochs, (accuracy, _), _), group in groups().items():
        run, paper = group['runs'][0], of_the_paper(config) if resolution == 32 else {}
        lines = [f'### {config}: the student sees {resolution} pixels, {epochs} epochs, a teacher of {accuracy:.1f} %', '',
                 '| | last epoch | best epoch | seeds | paper | difference |', '|---|---|---|---|---|---|']

        def row(name, last, best, seeds, paper=paper):
            quoted = paper.get(name)
            difference = f'{mean(last) - quoted:+.2f}' if quoted else '–'
            lines.append(f'| {name} | {spread(last)} | {spread(best)} | {seeds} | {quoted or "–"} | {difference} |')  # noqa: B023

        row('teacher', [accuracy], [accuracy], 1)
        for name, curves in group['curves'].items():
            row(name, [curve[-1] for curve in curves], [max(curve) for curve in curves], len(curves))
        minutes = mean(each['seconds'] for each in group['runs']) / 60
        seeds, steps = (', '.join(map(str, each)) for each in ([r['seed'] for r in group['runs']], run['milestones']))
        where = ' '.join(sorted({conditions(each) for each in group['runs']}))
        lines += ['', 'Test accuracy in percent, mean ± standard deviation over seeds. '
                  f'The teacher ({origin(run["teacher"])}) sees 32 pixels. Batch {run["batch"]}, learning rate {run["lr"]}, '
                  f'x0.1 after epochs {steps}, {run["precision"]}; seeds {seeds}. {minutes:.0f} minutes for all rows of a seed '
                  f'together. {where}', '']
        parts.append('\n'.join(lines))
    return '\n'.join(parts) or 'No runs yet.'


def over_kd() -> str:
    """Markdown: CRRCD less KD with the same weight of KD, in each run: a row a seed, and all together."""
    lines = ['| | seed | last epoch | mean since the first drop of the learning rate | epochs ahead |', '|---|---|---|---|---|']
    last, since = [], []
    for (config, resolution, epochs, (accuracy, _), _), group in groups().items():
        curves, pair = group['curves'], ' → '.join(config.removesuffix('_cifar100').split('_'))
        for run, ours, of_kd in zip(group['runs'], curves['CRRCD'], curves[OWN_KD], strict=True):
            points = [a - b for a, b in zip(ours, of_kd, strict=True)]
            last.append(points[-1])
            since.append(mean(points[run['milestones'][0]:]))
            lines.append(f'| {pair} at {resolution} pixels, {epochs} epochs, a teacher of {accuracy:.1f} % | {run["seed"]} '
                         f'| {last[-1]:+.2f} | {since[-1]:+.2f} | {sum(point > 0 for point in points)} of {epochs} |')
    return '\n'.join([*lines, f'| **all** | | **{spread(last)}** | **{spread(since)}** | |']) if last else 'No runs yet.'


def headline() -> str:
    """Markdown: the shortest true answer to "does it work?"."""
    found = groups()
    trained = {name for each in found.values() for name in each['curves']}
    columns = [name for name in METHODS if name in trained]
    lines = [f'| CIFAR-100, test accuracy (%) | {" | ".join(columns)} | teacher | epochs | seeds |',
             '|---' * (len(columns) + 4) + '|']
    for (config, resolution, epochs, (accuracy, _), _), group in found.items():
        curves = group['curves']
        last = [spread([curve[-1] for curve in curves[name]]) if name in curves else '–' for name in columns]
        last = [text + (f' (n = {len(curves[name])})' if name in curves and len(curves[name]) < len(group['runs']) else '')
                for text, name in zip(last, columns)]
        lines.append(f'| {" → ".join(config.removesuffix("_cifar100").split("_"))}, the student sees {resolution} pixels '
                     f'| {" | ".join(last)} | {accuracy:.2f} | {epochs} | {len(group["runs"])} |')
    return '\n'.join(lines) if len(lines) > 2 else 'No runs yet.'


def plot() -> Figure:
    """Test accuracy over the epochs, a panel for each pair and resolution."""
    found = groups()
    rows = max(1, (len(found) + 1) // 2)
    figure, panels = plt.subplots(rows, 2, figsize=(11, 4 * rows), squeeze=False, layout='constrained')
    for panel in panels.flat[len(found):]:
        panel.set_axis_off()
    for panel, ((config, resolution, epochs, (accuracy, _), _), group) in zip(panels.flat, found.items()):
        for colour, name in zip(('0.55', 'tab:blue', 'tab:green', 'tab:orange', 'tab:red'), METHODS):
            for i, curve in enumerate(group['curves'].get(name, [])):
                panel.plot(range(1, epochs + 1), curve, color=colour, label=None if i else name)
        panel.set(title=f'{config}\nthe student sees {resolution} pixels, a teacher of {accuracy:.1f} %', xlabel='epoch',
                  ylabel='test accuracy (%)')
        panel.grid(alpha=0.3)
        panel.legend(loc='lower right')
    return figure
