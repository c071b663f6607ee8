"""Accuracy over the resolution of the images."""
from collections.abc import Sequence

from matplotlib.figure import Figure


def draw_resolution(resolutions: Sequence[int], curves: dict[str, Sequence[float]], title: str = '') -> Figure:
    """A line for each network.

    Args:
        resolutions: sides of the images in pixels.
        curves: from the name of a network to its accuracies in percent, one for each resolution.
    """
    figure = Figure(figsize=(6.5, 5), facecolor='white', layout='constrained')
    axes = figure.subplots()
    for name, values in curves.items():
        axes.plot(resolutions, values, marker='o', label=name)
    axes.set(xticks=resolutions, xlabel='resolution of the images (pixels)', ylabel='accuracy (%)', ylim=(0, None))
    axes.set_title(title, fontsize=11)
    axes.grid(alpha=0.3)
    figure.legend(loc='outside lower center', ncols=2, frameon=False)
    return figure
