"""Figure 3 of the paper and further ablations of CRRCD as trained here: the runs of ``python tools/reproduce.py fig3``."""
import json
import math
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import recipes
import reproduced
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from reproduced import Entry

PAIR = 'resnet56_resnet20'                               # unless another is asked for
OURS, PAPER = 'tab:blue', 'tab:orange'
BASELINES = dict(student_alone=('student alone', '0.55'), kd=('KD (1 CE + 0.5 KD)', 'tab:green'))
FAILED = 10                                              # points below the baselines, where a panel ends
READABLE = dict(facecolor='white', edgecolor='none', alpha=0.75, pad=0.5)
PAPER_TITLE = 'the paper, on LFW, as far as its text goes'
# Of Figure 3, which is a picture, these are the numbers in the text beside it (Sec. IV-C).
PAPER_GAIN = 0.05                                        # points, from 512 negatives to 1,024
PAPER_GOOD = (0.08, 0.1)                                 # temperatures that work well
PAPER_TAU = (0.02, 0.30)                                 # from where to where the paper goes
PAPER_SAYS = dict(
    negatives={64: 'no number', 128: 'no number', 256: 'no number', 512: 'chosen; more negatives are better',
               1024: f'+{PAPER_GAIN} over 512'},
    tau={0.08: 'works well', 0.1: 'chosen; 0.08 to 0.1 works well'},
    source={'queue': 'chosen; with negatives of another class +0.25 or more'},
    sampling={'class': 'chosen; from a queue +0.25 or more'})
SHAPES = ('negatives', 'tau')                            # drawn in the paper


class Sweep(NamedTuple):
    """One setting of CRRCD: a name of configs/ablations/crrcd.py for each value; ``ordered`` values are joined by a line."""
    title: str
    names: dict[float | str, str]
    ordered: bool = True

    @property
    def places(self) -> dict[float | str, float]:
        """Of the values on the axis: logarithmic where all are numbers, else side by side."""
        numbers = not any(isinstance(value, str) for value in self.names)
        return {value: math.log2(value) if numbers else i for i, value in enumerate(self.names)}


SWEEPS = dict(
    negatives=Sweep('number of negatives n', {
        64: 'negatives_64', 128: 'negatives_128', 256: 'negatives_256', 512: 'default', 1024: 'negatives_1024'}),
    source=Sweep('negatives come from', {'queue': 'default', 'batch': 'in_batch'}, False),
    tau=Sweep('temperature τ', {
        0.02: 'tau_0.02', 0.05: 'tau_0.05', 0.07: 'tau_0.07', 0.08: 'tau_0.08', 0.1: 'default', 0.2: 'tau_0.2',
        0.3: 'tau_0.3'}),
    beta=Sweep('weight β of the relational loss', {
        0.05: 'beta_0.05', 0.2: 'default', 0.5: 'beta_0.5', 1: 'beta_1', 2: 'beta_2'}),
    alpha=Sweep('weight α of KD', {'0': 'alpha_0', '0.5': 'default'}, False),
    dim=Sweep('width of relations and critic', {64: 'dim_64', 128: 'default', 256: 'dim_256'}),
    sampling=Sweep('negatives are of another', {'class': 'default', 'image': 'unsupervised'}, False),
    anchors=Sweep('anchors', {'1': 'anchors_1', '8': 'default', '32': 'anchors_32', 'all': 'anchors_all'}),
    forms=Sweep('form of the critic', {
        'softmax, centred': 'default', 'softmax': 'softmax_not_centred', 'Z, centred': 'batch', 'Z': 'batch_not_centred',
        'Eq. 10, β 0.2': 'as_printed_beta_0.2', 'Eq. 10, β 2': 'as_printed'}, False),
    baselines=Sweep('without the relational loss', {title: name for name, (title, _) in BASELINES.items()}, False))


def names(sweeps: list[str] | None) -> list[str]:
    """The ablations of these sweeps, of all by default; each once."""
    return list(dict.fromkeys(name for sweep in sweeps or SWEEPS for name in SWEEPS[sweep].names.values()))


class Curves:
    """All sweeps of a pair with one recipe."""

    def __init__(self, recipe: str, records: list[dict], pair: str = PAIR):
        self.recipe, self.records, self.pair = recipe, records, pair
        self.of = {record['method']: record for record in records}

    def ours(self, name: str) -> list[float]:
        """The last epoch's accuracies of an ablation, one a seed; none where it was not run."""
        return [seed['last'] for seed in self.of[name]['seeds'].values()] if name in self.of else []

    def over_kd(self, name: str) -> str:
        """Points by which an ablation is ahead of KD, of the seeds that both have."""
        seeds, of_kd = (self.of.get(each, {}).get('seeds', {}) for each in (name, 'kd'))
        points = [seeds[seed]['last'] - of_kd[seed]['last'] for seed in seeds if seed in of_kd and name != 'kd']
        return f'{mean(points):+.2f}' + (f' ± {stdev(points):.2f}' if len(points) > 1 else '') if points else '–'

    def scores(self, name: str) -> str:
        """Of the critic, means over the last epoch and the seeds; they were not kept of all runs."""
        kept = [seed.get('means', {}) for seed in self.of[name]['seeds'].values()] if name in self.of else []
        if not kept or not all('score_positive' in means for means in kept):
            return '–'
        return ' / '.join(f'{mean(means[key] for means in kept):.2f}' for key in ('score_positive', 'score_negative'))

    def shown(self) -> dict[str, Sweep]:
        """Those with a run beside the default's; the paper's two together, and where there is none at all."""
        run = {key for key, sweep in SWEEPS.items() if set(self.of) & (set(sweep.names.values()) - {'default'})}
        if self.pair == PAIR and (run & set(SHAPES) or not run - {'baselines'}):
            run |= set(SHAPES)
        return {key: sweep for key, sweep in SWEEPS.items() if key in run}

    def title(self) -> str:
        return f'Figure 3 and further ablations: {" → ".join(recipes.split(self.pair))}. {reproduced.described(self.recipe)}'

    def name(self) -> str:
        """Of its files, without the suffix."""
        return '__'.join(['fig3', *([self.pair] if self.pair != PAIR else []), self.recipe])

    def notes(self) -> list[str]:
        """What has to be known beside the numbers."""
        notes = ['Test accuracy in percent at the last epoch, mean ± standard deviation of n seeds. "Over KD" is the '
                 'difference to KD of the same seed, mean ± standard deviation, which leaves out what seeds share. All '
                 'settings but the named one are the default' + ('; "Eq. 10" is the critic as printed, β = 2 that of the paper.'
                                                        if 'as_printed' in self.of else '.'),
                 "The paper's Figure 3 is face verification on LFW, so its values are not comparable, only its shape. It is a "
                 'picture; shown of it is what the text beside it says, nothing is read off the curves.']
        if any(self.ours(name) and mean(self.ours(name)) < self.floor() for name in self.of):
            notes.append(f'Points more than {FAILED} below the lower baseline stand at the foot of their panel, as numbers.')
        return notes + reproduced.training_notes(self.records)

    def floor(self) -> float:
        """Where the panels end, so that a setting that fails does not press all others together."""
        return min((mean(ours) for name in BASELINES if (ours := self.ours(name))), default=-math.inf) - FAILED

    def markdown(self, folder: str = '') -> str:
        """Picture and table; ``folder`` is where the picture is, seen from the page."""
        lines = [f'### {self.title()}', '', f'![accuracy over the settings]({folder}{self.name()}.png)', '',
                 '| setting | value | ours | over KD | scores of positives / negatives | the paper, on LFW |', '|---' * 6 + '|']
        for key, sweep in self.shown().items():
            for value, name in sweep.names.items():
                ours = Entry(self.ours(name), None, False, True).lines()[0]
                default = ' (default)' if name == 'default' else ''
                paper = PAPER_SAYS.get(key, {}).get(value, '–')
                lines.append(f'| {sweep.title} | {value}{default} | {ours} | {self.over_kd(name)} | {self.scores(name)} '
                             f'| {paper} |')
        return '\n'.join([*lines, '', *(f'{note}  ' for note in self.notes()), ''])

    def figure(self) -> Figure:
        """A panel for each sweep; under the paper's two is what it says of them."""
        shown = [key for key in self.shown() if key != 'baselines'] or list(SHAPES)
        shapes, further = [key for key in SHAPES if key in shown], [key for key in shown if key not in SHAPES]
        rows, heights = ([shapes, [f'paper {key}' for key in shapes]], [3, 1]) if shapes else ([], [])
        rows += [further[i:i + 2] for i in range(0, len(further), 2)]
        heights += [3] * (len(rows) - len(heights))
        figure = Figure(figsize=(10, 0.6 + 1.15 * sum(heights)), facecolor='white', layout='constrained')
        columns = max(map(len, rows))
        axes = figure.subplot_mosaic([[*row, '.'][:columns] for row in rows], height_ratios=heights)
        for key in shown:
            self.draw(SWEEPS[key], axes[key])
        for key in shapes:
            dict(negatives=draw_paper_negatives, tau=draw_paper_tau)[key](axes[f'paper {key}'])
        handles = {label: handle for panel in axes.values() for handle, label in zip(*panel.get_legend_handles_labels())}
        if handles:
            figure.legend(handles.values(), handles.keys(), loc='outside lower center', ncols=len(handles), frameon=False)
        figure.suptitle(self.title().replace('. ', '.\n'), size=11)
        return figure

    def draw(self, sweep: Sweep, axes: Axes) -> None:
        accuracies = {value: self.ours(name) for value, name in sweep.names.items()}
        places = sweep.places
        heights = [mean(ours) if ours else math.nan for ours in accuracies.values()]       # a gap in the line where not run
        errors = [stdev(ours) if len(ours) > 1 else 0 for ours in accuracies.values()]
        if any(accuracies.values()):
            shown = [math.nan if height < self.floor() else height for height in heights]
            axes.errorbar(list(places.values()), shown, errors, color=OURS, marker='o', capsize=3,
                          linestyle='-' if sweep.ordered else 'none', label='ours, mean ± standard deviation')
        for (value, ours), height in zip(accuracies.items(), heights):
            if ours and height < self.floor():
                axes.text(places[value], 0.03, f'{height:.2f} ↓\nn = {len(ours)}', transform=axes.get_xaxis_transform(), size=8,
                          color=OURS, ha='center', va='bottom', bbox=READABLE)
            elif ours:
                axes.annotate(f'{height:.2f}\nn = {len(ours)}', (places[value], height), (6, 4), textcoords='offset points',
                              size=7, color='0.3', bbox=READABLE)
            else:
                axes.text(places[value], 0.03, 'not run', transform=axes.get_xaxis_transform(), rotation=90, size=8,
                          color='0.5', ha='center', va='bottom', bbox=READABLE)
        for name, (title, colour) in BASELINES.items():
            if ours := self.ours(name):
                axes.axhline(mean(ours), color=colour, linestyle='--', label=f'{title} (n = {len(ours)})')
                if len(ours) > 1:
                    axes.axhspan(mean(ours) - stdev(ours), mean(ours) + stdev(ours), color=colour, alpha=0.12, linewidth=0)
        axes.set(xlabel=sweep.title, ylabel='test accuracy (%)')
        axes.margins(y=0.15)
        axes.grid(alpha=0.3)
        set_values(axes, sweep)
        if not axes.has_data():
            axes.set_yticks([])

    def write(self) -> list[Path]:
        """The curves as PNG and the table as Markdown beside the results."""
        reproduced.RESULTS.mkdir(parents=True, exist_ok=True)
        files = [reproduced.RESULTS / f'{self.name()}.{suffix}' for suffix in ('md', 'png')]
        files[0].write_text(self.markdown(), encoding='utf-8')
        self.figure().savefig(files[1], dpi=150)
        return files


def set_values(axes: Axes, sweep: Sweep) -> None:
    """The horizontal axis, the same above and below."""
    places = list(sweep.places.values())
    room = 0.12 * (places[-1] - places[0])
    axes.set_xlim(places[0] - room, places[-1] + room)
    axes.set_xticks(places, [str(value).replace(', ', ',\n') for value in sweep.names])


def draw_paper_negatives(axes: Axes) -> None:
    places = SWEEPS['negatives'].places
    axes.plot([places[512], places[1024]], [0, PAPER_GAIN], color=PAPER, marker='s')
    axes.annotate(f'+{PAPER_GAIN}', (places[1024], PAPER_GAIN), (-6, 0), textcoords='offset points', size=8, ha='right')
    axes.text(places[128], PAPER_GAIN / 2, 'fewer are worse:\nno numbers', size=8, color='0.4', ha='center', va='center')
    axes.set(ylabel='points\nover 512', ylim=(-PAPER_GAIN, 2 * PAPER_GAIN), yticks=[0, PAPER_GAIN])
    axes.set_title(PAPER_TITLE, size=9)
    set_values(axes, SWEEPS['negatives'])


def draw_paper_tau(axes: Axes) -> None:
    axes.axvspan(*map(math.log2, PAPER_TAU), color=PAPER, alpha=0.12, linewidth=0)
    axes.axvspan(*map(math.log2, PAPER_GOOD), color=PAPER, alpha=0.6, linewidth=0)
    for x, text in ((PAPER_TAU[1], 'tried: 0.02 to 0.30'), (PAPER_GOOD[0], '0.08 to 0.1\nworks well')):
        axes.annotate(text, (math.log2(x), 0.5), (-4, 0), textcoords='offset points', size=8, color='0.4', ha='right',
                      va='center')
    axes.set(ylim=(0, 1), yticks=[])
    axes.set_title(PAPER_TITLE, size=9)
    set_values(axes, SWEEPS['tau'])


def curves(recipe: str, pair: str = PAIR) -> Curves:
    """The sweeps of a pair with one recipe; there may be none yet."""
    return Curves(recipe, [json.loads(file.read_text()) for file, its in reproduced.files('fig3').items()
                           if its == recipe and file.stem.split('__')[1] == pair], pair)


def all_curves() -> list[Curves]:
    """Those of each pair and recipe that was run."""
    found = {(file.stem.split('__')[1], recipe) for file, recipe in reproduced.files('fig3').items()}
    return [curves(recipe, pair) for pair, recipe in sorted(found)]


def markdown() -> str:
    """All curves and tables, for a page of docs/."""
    return '\n'.join(each.markdown('../benchmarks/results/reproduce/') for each in all_curves()) or 'No runs yet.'
