"""Accuracy over the resolution of the images."""
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import label_lines, styles


def draw_lines(axes: Axes, resolutions: Sequence[int], curves: dict[str, Sequence[float]], height: float) -> None:
    """A line for each network, with its name at the right; ``height`` of the axes, about, in inches."""
    for name, style in styles(curves).items():
        axes.plot(resolutions, curves[name], marker='o', markersize=4, label=name, **style)
    axes.set(xticks=resolutions, xlabel='resolution of the images (px)', ylabel='accuracy (%)', ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    label_lines(axes, height)


def draw_resolution(resolutions: Sequence[int], curves: dict[str, Sequence[float]], title: str = '') -> Figure:
    """A line for each network.

    Args:
        resolutions: sides of the images in pixels.
        curves: from the name of a network to its accuracies in percent, one for each resolution.
    """
    figure = Figure(figsize=(8, 4.6), facecolor='white', layout='constrained')
    axes = figure.subplots()
    draw_lines(axes, resolutions, curves, 3.7)
    axes.set_title(title, fontsize=11)
    return figure
