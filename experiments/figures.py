"""The pictures of the pages, from the records: paired gains, methods as bars, accuracy over resolution and over epochs."""
import json
from statistics import mean, mode, stdev

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmcrrcd.visualization.resolution import draw_lines
from mmcrrcd.visualization.style import MUTED, SIZE, role

from . import plots, records, report
from .tables import TABLES, UNTRAINED, name_of, pair_name

STUDENT = 'student_alone'
RESOLUTION = {                                           # panel -> (records, line there -> name here)
    'CIFAR-100, teacher ResNet56, students ResNet20': [
        ('resolution', {'teacher, scaled up': 'teacher, upsampled', 'student for 8 pixels, alone': 'student-only, 8×8 px',
                        'the same, KD': 'KD, 8×8 px', 'the same, CRRCD, learned F': 'CRRCD, learned F, 8×8 px',
                        'student for all, CRRCD, learned F': 'CRRCD, learned F, 8 to 32 px'}),
        ('resolution_direct', {'teacher': 'teacher, not upsampled'})],
    **{f'{data}, teacher and students VGG8': [(f'resolution_vgg8_{data.lower().replace("-", "")}', {
        'teacher': 'teacher, upsampled', 'CRRCD, learned F, 8 pixels': 'CRRCD, learned F, 8×8 px',
        'CRRCD, learned F, 16 pixels': 'CRRCD, learned F, 16×16 px',
        f'CRRCD, learned F, 8 to {side} pixels': f'CRRCD, learned F, 8 to {side} px',
        f'CRRCD, learned F, 8 to {side} pixels, own batch norms': f'CRRCD, learned F, 8 to {side} px, refitted'})]
       for data, side in {'CIFAR-100': 32, 'TinyImageNet': 64}.items()}}


def plain(axes: Axes) -> None:
    """No frame but the axes, and a grid along x."""
    axes.spines[['top', 'right', 'left']].set_visible(False)
    axes.tick_params(left=False)
    axes.grid(axis='x', alpha=0.3)


def paired_gains(values: dict[int, float], reference: dict[int, float]) -> list[float]:
    """Of the seeds that both have."""
    return [values[seed] - reference[seed] for seed in values if seed in reference]


def draw_gains(axes: Axes, groups: dict[str, dict[str, list[float]]]) -> None:
    """A dot for each method, with its standard error and n beside it, below the conditions that a group was trained under.

    Args:
        groups: from the conditions to a method's gains, seed by seed.
    """
    places, y = [], 0.0
    for title, methods in groups.items():
        axes.text(0, y, title, transform=axes.get_yaxis_transform(), size=9, weight='bold', va='center')
        for label, points in methods.items():
            y += 1
            error = stdev(points) / len(points)**0.5 if len(points) > 1 else None
            axes.errorbar(mean(points), y, xerr=error, marker='o', capsize=3, color=role(label) or MUTED[0],
                          markerfacecolor='white' if 'without KD' in label else None)
            places.append((y, f'{label} (n = {len(points)})'))
        y += 1.6
    axes.axvline(0, color='0.4', linewidth=0.8)
    axes.set_yticks(*zip(*places), size=SIZE)
    axes.set(ylim=(y - 0.6, -0.8),
             xlabel='accuracy over the student-only baseline, paired by seed (points); bars: standard error')
    plain(axes)


def gains() -> Figure | None:
    """Main results as paired gains; None without any."""
    groups = {}
    for title, found in report.main_results().items():
        student = report.by_seed(found, STUDENT)
        points = {label: paired_gains(report.by_seed(found, method), student) for label, method in report.MAIN.items()
                  if method != STUDENT}
        groups[title] = {label: gain for label, gain in points.items() if gain}
    if not groups:
        return None
    lines = sum(len(methods) + 1.6 for methods in groups.values())
    figure = Figure(figsize=(9, 0.8 + 0.24 * lines), facecolor='white', layout='constrained')
    draw_gains(figure.subplots(), groups)
    return figure


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
    panels, found = [], records.read('table1')
    for recipe in sorted({record['recipe'] for record in found}):
        own = [record for record in found if record['recipe'] == recipe]
        for pair in TABLES['table1'].pairs:
            student, values = report.by_seed(own, 'student', pair_name('student', pair)), {}
            for method in dict.fromkeys(record['method'] for record in own if record['method'] not in ('student', *UNTRAINED)):
                if points := paired_gains(report.by_seed(own, method, '_'.join(pair)), student):
                    values[name_of(method)] = points
            if values:
                epochs, pixels = mode(record['training']['epochs'] for record in own), own[0]['resolution']
                number = ' to '.join(map(str, sorted({len(points) for points in values.values()})))
                panels.append((f'{report.in_words("_".join(pair))}, {pixels}×{pixels} px\n{epochs} epochs, '
                               f'{own[0]["training"]["precision"]}, n = {number}', values))
    if not panels:
        return None
    figure = Figure(figsize=(4.6 * len(panels), 0.9 + 0.23 * max(len(values) for _, values in panels)), facecolor='white',
                    layout='constrained')
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        draw_bars(axes, *panel)
    return figure


def resolution() -> Figure:
    """Accuracy over resolution of all networks that were measured so, a panel for each family."""
    figure = Figure(figsize=(8, 3.5 * len(RESOLUTION)), facecolor='white', layout='constrained')
    for axes, (title, parts) in zip(figure.subplots(len(RESOLUTION)), RESOLUTION.items()):
        curves = {}
        for name, lines in parts:
            measured = json.loads((records.RECORDS / 'measured' / f'{name}.json').read_text(encoding='utf-8'))
            curves |= {here: measured['accuracy'][there] for there, here in lines.items()}
        draw_lines(axes, measured['resolutions'], curves, 2.8)
        axes.set_title(f'{title} ({measured["images"]:,} test images, n = 1)', size=10, loc='left')
    return figure


def curves() -> Figure | None:
    """Test accuracy over the epochs of the main results; None without any."""
    found = [(title, plots.lines_of(own, report.MAIN)) for title, own in report.main_results().items()]
    return plots.panels(plots.draw_curves, found) if found else None


PICTURES = dict(gains=gains, bars=bars, resolution=resolution, results=curves)
