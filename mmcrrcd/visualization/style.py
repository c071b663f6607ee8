"""One palette for all figures, and names at the lines themselves."""
import itertools
import re
from collections.abc import Iterable

from matplotlib.axes import Axes

TEACHER, STUDENT_ONLY, KD, CRRCD = '#111111', '#8a8a8a', '#1565c0', '#c62828'
MUTED = ('#b08d57', '#5f9e8f', '#9b86b8', '#c08497', '#7b9e53', '#a3a380')           # whatever is none of these
LINES = ('-', '--', ':', '-.')
SIZE = 8.5                                               # of a name, in points


def role(label: str) -> str | None:
    """The color of what a label names first: a teacher, the student-only baseline, KD or CRRCD; None where it names none.

    KD beside another method is that method's.
    """
    if label.startswith('KD + '):
        return None
    known = {'teacher': TEACHER, 'student-only': STUDENT_ONLY, 'KD': KD, 'CRRCD': CRRCD}
    first = re.search(rf'\b({"|".join(known)})\b', label)
    return first and known[first[1]]


def styles(labels: Iterable[str]) -> dict[str, dict]:
    """Color and line style by label; of one role the line with the shortest name is drawn through, others are dashed.

    Example:
        >>> styles(['student-only', 'CRRCD', 'CRRCD without KD'])['CRRCD without KD']
        {'color': '#c62828', 'linestyle': '--'}
    """
    colors, muted = {}, itertools.cycle(MUTED)
    for label in labels:
        colors[label] = role(label) or next(muted)
    of_color = {}                                        # its labels, from short to long
    for label in sorted(colors, key=len):
        of_color.setdefault(colors[label], []).append(label)
    return {label: dict(color=color, linestyle=LINES[of_color[color].index(label) % len(LINES)])
            for label, color in colors.items()}


def label_lines(axes: Axes, height: float) -> None:
    """Writes the name of each line of ``axes`` at its right end, beside a piece of it, none over another.

    ``height`` is that of the axes, about, in inches. The limits of y must be what they will be.
    """
    bottom, top = axes.get_ylim()
    gap = 1.25 * SIZE / 72 / height                      # a line of text, as a share of the height
    ends = sorted(((line.get_ydata()[-1] - bottom) / (top - bottom), i, line) for i, line in enumerate(axes.lines)
                  if not line.get_label().startswith('_'))
    places = []
    for end, *_ in ends:
        places.append(max(end, places[-1] + gap) if places else end)
    if places and places[-1] > 1:                        # no room above: down again, from the top
        places[-1] = 1.0
        for i in range(len(places) - 2, -1, -1):
            places[i] = min(places[i], places[i + 1] - gap)
    for place, (_, _, line) in zip(places, ends):
        label = line.get_label()
        sample = dict(arrowstyle='-', color=line.get_color(), linestyle=line.get_linestyle(), shrinkA=0, shrinkB=2)
        axes.annotate(label, (1, place), (26, 0), xycoords='axes fraction', textcoords='offset points', color=line.get_color(),
                      size=SIZE, va='center', arrowprops=sample)
