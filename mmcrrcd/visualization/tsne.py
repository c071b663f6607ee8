"""Embeddings of several networks in the plane, side by side."""
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure


def draw_points(panels: dict[str, np.ndarray], labels: np.ndarray, classes: Sequence[str], title: str = '') -> Figure:
    """The same samples as each network places them, a color for each class.

    Args:
        panels: from the title of a panel to its points (N, 2).
        labels: (N,) positions in ``classes``.
        title: above the names of the classes, such as the number of samples.
    """
    columns = -(-len(classes) // 25)                     # of the legend
    figure = Figure(figsize=(4.8 * len(panels) + 1.9 * columns, 5.4), facecolor='white', layout='constrained')
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    colors = colormaps['tab10' if len(classes) <= 10 else 'gist_ncar'](np.linspace(0, 0.95, max(len(classes), 10)))
    for panel, (heading, points) in zip(axes, panels.items()):
        for k, name in enumerate(classes):
            panel.scatter(*points[labels == k].T, s=9, color=colors[k], linewidths=0, label=name)
        panel.set_title(heading, fontsize=11)
        panel.set(xticks=[], yticks=[], box_aspect=1)
    figure.legend(*axes[0].get_legend_handles_labels(), loc='outside right center', markerscale=2, frameon=False,
                  ncols=columns, title=title)
    return figure
