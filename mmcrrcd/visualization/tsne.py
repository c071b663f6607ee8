"""Embeddings of several networks in the plane, side by side."""
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure


def draw_points(panels: dict[str, np.ndarray], labels: np.ndarray, classes: Sequence[str], title: str = '') -> Figure:
    """The same samples as each network places them, a color for each class; panels in rows of two.

    Args:
        panels: from the title of a panel to its points (N, 2).
        labels: (N,) positions in ``classes``.
        title: above the names of the classes, such as the number of samples.
    """
    columns = -(-len(classes) // 25)                     # of the legend
    across, down = min(2, len(panels)), -(-len(panels) // 2)
    figure = Figure(figsize=(4.2 * across + 1.7 * columns, 4.6 * down), facecolor='white', layout='constrained')
    axes = list(figure.subplots(down, across, squeeze=False).flat)
    for panel in axes[len(panels):]:
        panel.remove()
    colors = colormaps['tab10' if len(classes) <= 10 else 'gist_ncar'](np.linspace(0, 0.95, max(len(classes), 10)))
    for panel, (heading, points) in zip(axes, panels.items()):
        for k, name in enumerate(classes):
            panel.scatter(*points[labels == k].T, s=9, color=colors[k], linewidths=0, label=name)
        panel.set_title(heading, fontsize=10)
        panel.set(xticks=[], yticks=[], box_aspect=1)
    figure.legend(*axes[0].get_legend_handles_labels(), loc='outside right center', markerscale=2, frameon=False,
                  ncols=columns, title=title)
    return figure
