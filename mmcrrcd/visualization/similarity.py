"""How the similarities of positive and of negative pairs are distributed, Figure 5 of the paper."""
import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mmcrrcd.evaluation.margins import expectation_margin, histogram_intersection, histograms

NEGATIVE, POSITIVE = '#4c78a8', '#f58518'                # blue and orange, as in the paper


def draw_similarities(panels: dict[str, np.ndarray], same: np.ndarray, title: str = '') -> Figure:
    """A panel for each network, with the two numbers of its distributions: expectation margin and histogram intersection.

    Args:
        panels: from the name of a network to the cosines (P,) of the pairs.
        same: (P,) bool, positive pairs.
    """
    same = np.asarray(same, bool)
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(4.6 * columns + 0.4, 3.2 * rows + 0.8), facecolor='white', layout='constrained')
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for panel in axes.flat[len(panels):]:
        panel.remove()
    for panel, (name, scores) in zip(axes.flat, panels.items()):
        positive, negative, edges = histograms(scores, same)
        for shares, kind, number, color in ((negative, 'negative', (~same).sum(), NEGATIVE),
                                             (positive, 'positive', same.sum(), POSITIVE)):
            panel.stairs(shares, edges, fill=True, alpha=0.55, color=color, label=f'{number:,} {kind} pairs')
            panel.stairs(shares, edges, color=color)
            panel.axvline(scores[same == (kind == 'positive')].mean(), color=color, linestyle='--')
        panel.set_title(f'{name}\nexpectation margin {expectation_margin(scores, same):.3f}, '
                        f'histogram intersection {histogram_intersection(scores, same):.3f}', fontsize=10)
        panel.set(xlim=limits(panels.values()))
        panel.grid(alpha=0.3)
        panel.xaxis.set_major_locator(MaxNLocator(6))
        panel.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for panel in axes.flat[len(panels) - columns:len(panels)]:           # the lowest of each column
        panel.set_xlabel('cosine similarity')
        panel.tick_params(labelbottom=True)
    for panel in axes[:, 0]:
        panel.set(ylabel='share of the pairs', ylim=(0, None))
    figure.suptitle(title, fontsize=11)
    handles = [*axes[0, 0].get_legend_handles_labels()[0], Line2D([], [], color='gray', linestyle='--', label='mean')]
    figure.legend(handles=handles, loc='outside lower center', ncols=3, frameon=False)
    return figure


def limits(scores) -> tuple[float, float]:
    """What all panels show: all similarities, out to the next tenth, within -1 and 1."""
    values = np.concatenate(list(scores))
    return max(-1.0, np.floor(10 * values.min()) / 10), min(1.0, np.ceil(10 * values.max()) / 10)
