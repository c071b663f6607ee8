"""From records to figures: the settings of Figure 3, curves over the epochs, results over the learning rate."""
import math
import textwrap
from statistics import mean, stdev

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmcrrcd.visualization.style import CRRCD, KD, STUDENT_ONLY, label_lines, styles

from .figure3 import SWEEPS, Sweep
from .report import FORMS, MAIN, Records, by_seed, described, groups, in_words
from .studies import RATE
from .tables import name_of

FAILED = 10                                              # points below the baselines, where a panel of Figure 3 ends
READABLE = dict(facecolor='white', edgecolor='none', alpha=0.75, pad=0.5)


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
    errors = [stdev(values) if len(values) > 1 else 0 for values in ours]
    axes.errorbar(places, heights, errors, marker='o', capsize=3, linestyle='-' if sweep.ordered else 'none', color=CRRCD,
                  label=name_of('crrcd_learned' if sweep.title.startswith('learned F') else 'crrcd'))
    for place, values, height in zip(places, ours, heights):
        if not math.isnan(height):
            axes.annotate(f'{height:.2f}\nn = {len(values)}', (place, height), (6, 4), textcoords='offset points', size=7,
                          color='0.3', bbox=READABLE)
        else:
            axes.text(place, 0.03, f'{mean(values):.2f} ↓\nn = {len(values)}', transform=axes.get_xaxis_transform(), size=8,
                      color='0.4', ha='center', bbox=READABLE)
    for (label, values), color in zip(base.items(), (STUDENT_ONLY, KD)):
        if values:
            axes.axhline(mean(values), color=color, linestyle='--', label=f'{label} (n = {len(values)})')
    room = 0.12 * (places[-1] - places[0]) or 1
    axes.set_xlim(places[0] - room, places[-1] + room)
    axes.set_xticks(places, [str(value).replace(', ', ',\n') for value in names])
    axes.set(xlabel=sweep.title, ylabel='test accuracy (%)')
    axes.margins(y=0.15)


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


def panels(draw, each: list[tuple], title: str = '') -> Figure:
    """A figure with ``draw(axes, *arguments)`` in a panel for each arguments."""
    columns = min(2, len(each))
    rows = -(-len(each) // columns)
    figure = Figure(figsize=(6.5 * columns, 3.6 * rows + 0.6), layout='constrained')
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(each):]:
        axes.set_axis_off()
    for axes, arguments in zip(grid.flat, each):
        draw(axes, *arguments)
        axes.grid(alpha=0.3)
    if title:
        legend = {label: handle for axes in grid.flat for handle, label in zip(*axes.get_legend_handles_labels())}
        figure.legend(legend.values(), legend, loc='outside lower center', ncols=2 if columns == 1 else 4, frameon=False)
        figure.suptitle(textwrap.fill(title, 64 * columns), size=11)
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
    return panels(draw_curves, drawn) if drawn else None


def draw_rates(axes: Axes, gamma: float, lines: dict[str, dict[float, list[float]]]) -> None:
    """A result over the learning rate, mean and standard deviation of the seeds."""
    looks = styles(lines)
    for name, points in lines.items():
        rates = sorted(points)
        errors = [stdev(points[rate]) if len(points[rate]) > 1 else 0 for rate in rates]
        axes.errorbar(rates, [mean(points[rate]) for rate in rates], errors, marker='o', capsize=3, label=name, **looks[name])
    axes.set(xscale='log', xlabel='learning rate', ylabel='%', title=f'γ = {gamma}')
    axes.legend(fontsize=7)


def rates(found: Records, key: str) -> Figure | None:
    """A panel for each gamma, a line for each method; None where no arm says its learning rate."""
    drawn = {}
    for record in found:
        name, rate, _ = record['method'].partition(RATE)
        if rate and key in record['results']:
            lines = drawn.setdefault(record['setting']['gamma'], {})
            lines.setdefault(name, {}).setdefault(record['setting']['lr'], []).append(record['results'][key])
    return panels(draw_rates, sorted(drawn.items())) if drawn else None
