"""Images at two resolutions with what several networks answered."""
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

RIGHT, WRONG = ('#1a7f37', '#dafbe1'), ('#cf222e', '#ffebe9')             # text, and the ground behind it
LINE = 0.42                                              # height of a line of answers; an image is 1 x 1
LABELS = 3.9                                             # width of the names at the left


def draw_answers(high: np.ndarray, low: np.ndarray, truth: Sequence[str], answers: dict[str, Sequence[str]],
                 columns: int = 12, title: str = '') -> Figure:
    """Each sample as a column: the two images, the truth, and a line for each network, green where right, red where wrong.

    Args:
        high, low: (N, H, W, 3) and (N, h, w, 3) uint8; pixels are shown as they are, without smoothing.
        truth: N class names, short ones.
        answers: from the name of a network to its N answers.
        columns: samples side by side; further samples follow below.
    """
    blocks = -(-len(truth) // columns)
    middles = [0.5, 1.55, *(2.31 + LINE * line for line in range(1 + len(answers)))]      # of the rows of a block
    height = middles[-1] + LINE
    width = LABELS + 1.08 * columns
    figure = Figure(figsize=(0.75 * width, 0.75 * (blocks * height + 0.6)), facecolor='white')
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis('off')
    axes.text(0.15, -0.3, title, fontsize=13, weight='bold', va='center')
    for i, name in enumerate(truth):
        block, column = divmod(i, columns)
        left, top = LABELS + 1.08 * column, block * height
        if column == 0:
            names = [f'{images.shape[2]}×{images.shape[1]} px' for images in (high, low)]
            for label, y in zip([*names, 'truth', *answers], middles, strict=True):
                axes.text(0.15, top + y, label, fontsize=12, va='center_baseline')
        for image, y in ((high[i], 0), (low[i], 1.05)):
            axes.imshow(image, extent=(left, left + 1, top + y + 1, top + y), interpolation='nearest')
        lines = [(name, ('black', 'none')), *((said[i], RIGHT if said[i] == name else WRONG) for said in answers.values())]
        for (said, (ink, ground)), y in zip(lines, middles[2:], strict=True):
            axes.add_patch(Rectangle((left, top + y - 0.19), 1, 0.38, color=ground))
            axes.text(left + 0.5, top + y, said, color=ink, fontsize=13, weight='bold', ha='center', va='center_baseline')
    axes.set(xlim=(0, width), ylim=(blocks * height, -0.6), aspect='equal')   # imshow has moved them
    return figure
