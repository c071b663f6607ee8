"""From records to figures: gains over the baseline, accuracy over resolution, epochs, learning rate and settings."""
import json
import math
import textwrap
from statistics import mean, mode, stdev

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmcrrcd.visualization.resolution import draw_resolution
from mmcrrcd.visualization.style import CRRCD, KD, MUTED, SIZE, STUDENT_ONLY, label_lines, role, styles

from . import records
from .figure3 import SWEEPS, Sweep
from .records import paired
from .report import (FORMS, HEADLINE, MAIN, OWN_KD, SHOWN, Records, best, by_seed, described, figure3_groups, final, groups,
                     in_words, main_results, read_study, setting_in_words)
from .studies import RATE, STUDIES
from .tables import TABLES, UNTRAINED, name_of, pair_name

FAILED = 10                                              # points below the baselines, where a panel of Figure 3 ends
MOST = 5                                                 # methods in a figure of learning rates, beside the baselines
READABLE = dict(facecolor='white', edgecolor='none', alpha=0.75, pad=0.5)


def plain(axes: Axes) -> None:
    """No frame but the axes, and a grid along x."""
    axes.spines[['top', 'right', 'left']].set_visible(False)
    axes.tick_params(left=False)
    axes.grid(axis='x', alpha=0.3)
    axes.set_axisbelow(True)


def deviation(values: list[float]) -> float:
    """Standard deviation; of one value none."""
    return stdev(values) if len(values) > 1 else 0


def dots(groups: dict[str, dict[str, list[float]]], xlabel: str) -> Figure | None:
    """A dot for the mean of each method's differences, with standard error and n, and a small one for each seed."""
    groups = {title: methods for title, methods in groups.items() if methods}
    if not groups:
        return None
    lines = sum(len(methods) + 1.6 for methods in groups.values())
    figure = Figure(figsize=(9, 0.8 + 0.24 * lines), layout='constrained')
    axes, places, y = figure.subplots(), [], 0.0
    for title, methods in groups.items():
        axes.text(0, y, title, transform=axes.get_yaxis_transform(), size=9, weight='bold', va='center',
                  bbox=READABLE | dict(alpha=1))
        for label, points in methods.items():
            y += 1
            color = role(label) or MUTED[0]
            error = stdev(points) / len(points)**0.5 if len(points) > 1 else None
            axes.errorbar(mean(points), y, xerr=error, marker='o', capsize=3, color=color,
                          markerfacecolor='white' if 'without KD' in label else None)
            if len(points) > 1:
                axes.scatter(points, [y] * len(points), s=9, color=color, alpha=0.4, linewidths=0)
            places.append((y, f'{label} (n = {len(points)})'))
        y += 1.6
    axes.axvline(0, color='0.4', linewidth=0.8)
    axes.set_yticks(*zip(*places), size=SIZE)
    axes.set(ylim=(y - 0.6, -0.8), xlabel=f'{xlabel}\nlarge dots: mean, with its standard error; small: each seed')
    plain(axes)
    return figure


def headline() -> Figure | None:
    """The final studies: each method over the best KD, seed by seed; None without any."""
    groups = {}
    for name in HEADLINE:
        found = final(name)
        if kd := best(found, OWN_KD):
            points = {arm: paired(by_seed(found, arm), by_seed(found, kd)) for arm in STUDIES[name].arms if arm != kd}
            ranked = sorted((arm for arm in points if points[arm]), key=lambda arm: mean(points[arm]))
            groups[f'{setting_in_words(found)}, over {SHOWN.get(kd)}'] = {SHOWN.get(arm, arm): points[arm] for arm in ranked}
    return dots(groups, 'test accuracy over the best KD, paired by seed (points)')


def gains() -> Figure | None:
    """Main results as gains over the student-only baseline, seed by seed; None without any."""
    groups = {}
    for title, found in main_results().items():
        student = by_seed(found, MAIN['student-only'])
        points = {label: paired(by_seed(found, method), student) for label, method in MAIN.items() if label != 'student-only'}
        groups[title] = {label: gain for label, gain in points.items() if gain}
    return dots(groups, 'test accuracy over the student-only baseline, paired by seed (points)')


def draw_bars(axes: Axes, title: str, values: dict[str, list[float]]) -> None:
    """A bar for each method, the best one above, its value beside it."""
    best = sorted(values, key=lambda label: mean(values[label]))
    axes.barh(best, [mean(values[label]) for label in best], color=[role(label) or '0.78' for label in best])
    for y, label in enumerate(best):
        gain = round(mean(values[label]), 1) + 0.0
        axes.annotate(f'{gain:+.1f}', (max(gain, 0), y), (3, 0), textcoords='offset points', size=7, va='center')
    axes.axvline(0, color='0.4', linewidth=0.8)
    axes.set_title(title, size=9)
    axes.tick_params(axis='y', labelsize=SIZE)
    axes.set_xlabel('points over the student-only baseline', size=SIZE)
    axes.margins(x=0.18, y=0.01)
    plain(axes)


def bars() -> Figure | None:
    """All methods of Table I's recipes and pairs that have the student-only baseline, as gains over it; None without any."""
    drawn, found = [], records.read('table1')
    for recipe in sorted({record['recipe'] for record in found}):
        own = [record for record in found if record['recipe'] == recipe]
        for pair in TABLES['table1'].pairs:
            student, values = by_seed(own, 'student', pair_name('student', pair)), {}
            for method in dict.fromkeys(record['method'] for record in own if record['method'] not in ('student', *UNTRAINED)):
                if points := paired(by_seed(own, method, '_'.join(pair)), student):
                    values[name_of(method)] = points
            if values:
                epochs, pixels = mode(record['training']['epochs'] for record in own), own[0]['resolution']
                number = ' to '.join(map(str, sorted({len(points) for points in values.values()})))
                drawn.append((f'{in_words("_".join(pair))}, {pixels}×{pixels} px\n{epochs} epochs, '
                               f'{own[0]["training"]["precision"]}, n = {number}', values))
    if not drawn:
        return None
    columns, rows = min(2, len(drawn)), -(-len(drawn) // 2)
    height = 0.9 + 0.2 * max(len(values) for _, values in drawn)
    figure = Figure(figsize=(4.6 * columns, height * rows), layout='constrained')
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, panel in zip(grid, drawn):
        draw_bars(axes, *panel)
    for axes in grid[len(drawn):]:
        axes.set_axis_off()
    return figure


def resolution() -> Figure:
    """Accuracy over resolution of the networks that were measured so."""
    measured = [json.loads((records.RECORDS / 'measured' / f'{name}.json').read_text(encoding='utf-8'))
                for name in ('resolution', 'resolution_direct')]
    curves = {label: values for part in measured for label, values in part['accuracy'].items()}
    return draw_resolution(measured[0]['resolutions'], curves, 'CIFAR-100, teacher ResNet56, students ResNet20 '
                           f'({measured[0]["images"]:,} test images, n = 1)')


def draw_sweep(axes: Axes, sweep: Sweep, found: Records) -> None:
    """Accuracies over the values of a setting that were run; dashed lines: the baselines. One far below is told at the foot."""
    base = {label: by_seed(found, MAIN[label]).values() for label in list(MAIN)[:2]}
    floor = min((mean(values) for values in base.values() if values), default=-math.inf) - FAILED
    run = [(place, value, values) for place, (value, method) in zip(sweep.places(), sweep.names.items())
           if (values := list(by_seed(found, method).values()))]
    if not run:
        return
    places, names, ours = zip(*run)
    heights = [mean(values) if mean(values) >= floor else math.nan for values in ours]
    axes.errorbar(places, heights, list(map(deviation, ours)), marker='o', capsize=3, color=CRRCD,
                  linestyle='-' if sweep.ordered else 'none',
                  label=name_of('crrcd_learned' if sweep.title.startswith('learned F') else 'crrcd'))
    for place, values, height in zip(places, ours, heights):
        if not math.isnan(height):
            axes.annotate(f'n = {len(values)}', (place, height), (4, 5), textcoords='offset points', size=7, color='0.3')
        else:
            axes.text(place, 0.03, f'{mean(values):.2f} ↓\nn = {len(values)}', transform=axes.get_xaxis_transform(), size=8,
                      color='0.4', ha='center', bbox=READABLE)
    for (label, values), color in zip(base.items(), (STUDENT_ONLY, KD)):
        if values:
            axes.axhline(mean(values), color=color, linestyle='--', label=f'{label} (n = {len(values)})')
    room = 0.14 * (places[-1] - places[0]) or 1
    axes.set_xlim(places[0] - room, places[-1] + room)
    axes.set_xticks(places, [str(value).replace(', ', ',\n') for value in names], size=SIZE)
    axes.set(xlabel=sweep.title, ylabel='test accuracy (%)')
    axes.margins(y=0.18)


def draw_curves(axes: Axes, title: str, lines: dict[str, Records]) -> None:
    """Test accuracy over the epochs, mean of the seeds."""
    looks = styles(lines)
    for label, own in lines.items():
        points = {}
        for row in (row for record in own for row in record['epochs'] if 'accuracy' in row):
            points.setdefault(row['epoch'], []).append(row['accuracy'])
        axes.plot(list(points), [mean(values) for values in points.values()], label=f'{label} (n = {len(own)})',
                  **looks[label])
    axes.set_title(textwrap.fill(title, 76), size=9, loc='left')
    axes.set(xlabel='epoch', ylabel='test accuracy (%)')
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.spines[['top', 'right']].set_visible(False)
    label_lines(axes, 2.9)


def panels(draw, each: list[tuple], title: str = '', size: tuple[float, float] = (4.6, 2.9)) -> Figure:
    """A figure with ``draw(axes, *arguments)`` in a panel for each arguments."""
    columns = min(2, len(each))
    rows = -(-len(each) // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows + 0.6), layout='constrained')
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(each):]:
        axes.set_axis_off()
    for axes, arguments in zip(grid.flat, each):
        draw(axes, *arguments)
        axes.grid(alpha=0.3)
    if title:
        legend = {label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels())}
        figure.legend(legend.values(), legend, loc='outside lower center', ncols=2 if columns == 1 else 4, frameon=False)
        figure.suptitle(textwrap.fill(title, 46 * columns), size=10)
    return figure


def sweeps(found: Records, title: str) -> Figure:
    """A panel for each sweep that something was run of; that of the baselines where nothing else was."""
    there = {record['method'] for record in found} - FORMS.keys()
    drawn = [sweep for key, sweep in SWEEPS.items() if key != 'baselines' and there & set(sweep.names.values())]
    return panels(draw_sweep, [(sweep, found) for sweep in drawn or [SWEEPS['baselines']]], title)


def lines_of(found: Records, labels: dict[str, str]) -> dict[str, Records]:
    """The records with a curve by the labels of their methods."""
    return {label: own for label, method in labels.items() if (own := [
        record for record in found if record['method'] == method and any('accuracy' in row for row in record['epochs'])])}


def curves(found: Records, labels: dict[str, str]) -> Figure | None:
    """A panel for each pair, recipe and teacher, with the student-only baseline; None where nothing was tested in training."""
    found, drawn = groups(found), []
    for (pair, recipe, _), own in found.items():         # the baseline is of its own network, a part of the pair's name
        alone = [each for (one, other, _), each in found.items() if other == recipe and pair.endswith(f'_{one}')]
        if not any(one.endswith(f'_{pair}') and other == recipe for one, other, _ in found):
            drawn.append((f'{in_words(pair)}, {described(recipe)}', lines_of(sum(alone, own), labels)))
    drawn = [(title, lines) for title, lines in drawn if lines]
    return panels(draw_curves, drawn, size=(6.5, 3.6)) if drawn else None


def rates(found: Records, key: str) -> Figure | None:
    """A result over the learning rate, mean and standard deviation of the seeds; None where no arm says its rate.

    Of the baselines and of the methods that reach most, at each rate with the best of their gammas.
    """
    points = {}
    for record in found:
        name, rate, _ = record['method'].partition(RATE)
        if rate and key in record['results']:
            at = points.setdefault(name, {}).setdefault(record['setting']['lr'], {})
            at.setdefault(record['setting']['gamma'], []).append(record['results'][key])
    if not points:
        return None
    lines = {name: {rate: max(at.values(), key=mean) for rate, at in sorted(own.items())} for name, own in points.items()}
    highest = sorted(lines, key=lambda name: max(map(mean, lines[name].values())))
    shown = [name for name in lines if name in highest[-MOST:] or name in ('student-only', 'KD')]
    figure, looks = Figure(figsize=(7.5, 4.2), layout='constrained'), styles(shown)
    axes = figure.subplots()
    for name in shown:
        means, errors = ([what(values) for values in lines[name].values()] for what in (mean, deviation))
        axes.errorbar(list(lines[name]), means, errors, marker='o', capsize=3, label=name, **looks[name])
    ticks = sorted({rate for name in shown for rate in lines[name]})
    axes.set(xscale='log', xlabel='learning rate (at each, the best γ of those tried)', ylabel='accuracy (%)')
    axes.set_xticks(ticks, list(map(str, ticks)))
    axes.minorticks_off()
    axes.spines[['top', 'right']].set_visible(False)
    axes.grid(alpha=0.3)
    figure.legend(loc='outside right upper', frameon=False)
    return figure


def of(experiment: str) -> dict[str, Figure]:
    """What is drawn beside the records of a table, figure or study, by the names of the files."""
    if experiment == 'figure3':
        return {name: sweeps(own, title) for name, (title, own) in figure3_groups().items()}
    name = experiment.removeprefix('study_')
    found, study = (records.read(name), None) if name == experiment else (read_study(name), STUDIES[name])
    if study is None:
        figure = curves(found, {name_of(method): method for method in dict.fromkeys(record['method'] for record in found)})
    else:
        figure = rates(found, next(iter(study.columns.values()), 'last'))
        if figure is None and not study.columns:
            figure = curves(found, {arm: arm for arm in study.arms})
    return {experiment: figure} if figure else {}


PICTURES = dict(headline=headline, gains=gains, bars=bars, resolution=resolution,          # of the pages
                rates=lambda: rates(read_study('few_resnet20_rates'), 'last'))
