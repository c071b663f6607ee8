"""Accuracy over the resolution of the images."""
from collections.abc import Sequence

from matplotlib.figure import Figure

from .style import label_lines, styles


def draw_resolution(resolutions: Sequence[int], curves: dict[str, Sequence[float]], title: str = '') -> Figure:
    """A line for each network, with its name at the right.

    Args:
        resolutions: sides of the images in pixels.
        curves: from the name of a network to its accuracies in percent, one for each resolution.
    """
    figure = Figure(figsize=(8, 4.6), facecolor='white', layout='constrained')
    axes = figure.subplots()
    for name, style in styles(curves).items():
        axes.plot(resolutions, curves[name], marker='o', markersize=4, label=name, **style)
    axes.set(xticks=resolutions, xlabel='resolution of the images (px)', ylabel='accuracy (%)', ylim=(0, None))
    figure.suptitle(title, fontsize=11)
    axes.grid(alpha=0.3)
    axes.spines[['top', 'right']].set_visible(False)
    label_lines(axes, 3.7)
    return figure
