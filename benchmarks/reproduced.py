"""Tables I and II as trained here, beside the paper's numbers: the runs of ``python tools/reproduce.py``."""
import html
import json
import textwrap
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

from environment import KEPT, conditions
from matplotlib.figure import Figure
from paper_tables import BEST_EPOCH, NOT_AS_PUBLISHED, PAPER_TABLES, label

TEACHER_ALONE = ('teacher', 'naive')                     # rows of faces that train no student
RESULTS = KEPT / 'reproduce'
BETTER, WORSE = '#cfe3f7', '#fbdcc0'                     # blue and orange, of equal weight
STYLE = f'''body {{ font-family: sans-serif; margin: 2em; overflow-x: auto }}
table {{ border-collapse: collapse }} th, td {{ border: 1px solid #bbb; padding: .4em .7em; text-align: center }}
th {{ font-weight: 600 }} .better {{ background: {BETTER} }} .worse {{ background: {WORSE} }} .none {{ color: #777 }}
caption, p {{ text-align: left; max-width: 70em }} caption {{ font-size: 1.2em; padding: .5em 0 }}'''


class Entry(NamedTuple):
    """A cell: accuracies of the seeds (none: not run), the paper's number (None: left out), and whether the two compare.

    ``exists``: the paper has a number there, so there is something to run.
    """
    ours: list[float]
    paper: float | None
    comparable: bool
    exists: bool

    @property
    def difference(self) -> float | None:
        return round(mean(self.ours) - self.paper, 2) + 0.0 if self.ours and self.paper is not None else None     # no -0.0

    @property
    def kind(self) -> str:
        """'better', 'worse', 'equal' than the paper; 'none' where there is nothing to compare."""
        if self.difference is None or not self.comparable:
            return 'none'
        return 'better' if self.difference > 0 else 'worse' if self.difference < 0 else 'equal'

    def lines(self) -> list[str]:
        """What we have, and below it the paper's number with the difference."""
        lines = ['not run' if self.exists else '–']
        if self.ours:
            spread = f' ± {stdev(self.ours):.2f}' if len(self.ours) > 1 else ''
            lines = [f'{mean(self.ours):.2f}{spread} (n = {len(self.ours)})']
        if self.paper is not None:
            mark = dict(better='▲ ', worse='▼ ').get(self.kind, '')
            lines.append(f'paper {self.paper:.2f}' + (f': {mark}{self.difference:+.2f}' if self.ours else ''))
        return lines


def pixels(recipe: str) -> int:
    """That the student sees with the recipe of this label."""
    return int(recipe.split('px__')[0]) if 'px__' in recipe else 32


def length(recipe: str) -> str:
    """The schedule of a recipe's label in words."""
    schedule, *epochs = recipe.split('px__')[-1].split('_in_')
    return f'schedule {schedule}' + (f', shortened to {epochs[0].removesuffix("e")} epochs' if epochs else '')


def described(recipe: str) -> str:
    """A recipe's label in words."""
    return f'CIFAR-100, the student sees {pixels(recipe)} pixels, {length(recipe)}'


def pair_name(method: str, pair: tuple[str, str]) -> str:
    """What a method trains or tests of a pair: a student alone has no teacher, a teacher no student."""
    return dict(student=pair[1], teacher=pair[0], naive=pair[0]).get(method, '_'.join(pair))


def source(meta: dict) -> dict:
    """The file that a teacher with this ``meta`` in its checkpoint was imported from; nothing where it was trained here."""
    return dict(source=meta['source'], source_sha256=meta['sha256']) if 'source' in meta else {}


def origin(teacher: dict) -> str:
    """Where a teacher's weights come from: so many epochs here, or a file of others."""
    if 'source' not in teacher:
        return f'{teacher["epochs"]} epochs'
    return f'weights of others, {teacher["source"]}, SHA-256 {teacher["source_sha256"][:12]}'


def training_notes(records: list[dict]) -> list[str]:
    """How and where these were trained, and by which teachers."""
    trained = [record for record in records if record['method'] not in TEACHER_ALONE]
    steps = sorted({f'batch {record["batch"]}, learning rate {record["lr"]}, {record["precision"]}' for record in trained})
    reduced = sorted(f'{record["method"]}/{record["pair"]}' for record in trained if record['precision'] == 'bfloat16')
    if 0 < len(reduced) < len(trained):
        steps.append(f'in bfloat16: {", ".join(reduced)}')
    different = {(Path(r['teacher']['checkpoint']).name, origin(r['teacher']), r['teacher']['sha256'])
                 for r in records if r['teacher']}
    names = [name for name, *_ in different]
    teachers = sorted(f'{name} {where}' + (f' ({checksum}, one of {names.count(name)} different ones)'
                                           if names.count(name) > 1 else '') for name, where, checksum in different)
    seeds = [seed for record in records for seed in record['seeds'].values()]
    where = sorted({conditions(seed) for seed in seeds})
    if together := [len(seed['in_step']) for seed in seeds if 'in_step' in seed]:
        numbers = ' or '.join(map(str, sorted(set(together))))
        where.insert(0, f'Trained in step, {numbers} at once, on the same batches, crops and flips: {len(together)} of '
                     f'{len(seeds)} runs.')
    return [f'{name}: {"; ".join(values)}.' for name, values in (('Training', steps), ('Teachers', teachers))
            if values] + where


class Variant:
    """One of the paper's tables with one recipe: all its results."""

    def __init__(self, table: str, recipe: str, records: list[dict]):
        self.table, self.recipe, self.paper, self.records = table, recipe, PAPER_TABLES[table], records
        self.of = {(record['method'], record['pair']): record for record in records}

    @property
    def pixels(self) -> int:
        return pixels(self.recipe)

    @property
    def shortened(self) -> bool:
        return '_in_' in self.recipe

    def entry(self, method: str, pair: tuple[str, str]) -> Entry:
        exists = '_'.join(pair) in self.paper.rows.get(method, {})
        paper = self.paper.rows[method]['_'.join(pair)] if exists and self.pixels == 32 else None
        if method == 'teacher':
            teachers = {record['teacher']['sha256']: record['teacher']['accuracy'] for record in self.records
                        if record['teacher'] and record['pair'] == '_'.join(pair)}
            return Entry([accuracy for accuracy in teachers.values() if accuracy is not None], paper,
                         not self.shortened, exists)
        record = self.of.get((method, pair_name(method, pair)))
        shown = 'best' if method in BEST_EPOCH else 'last'
        ours = [seed[shown] for seed in record['seeds'].values()] if record else []
        return Entry(ours, paper, not self.shortened, exists)

    def methods(self) -> list[str]:
        """Those of the paper's rows, and further ones that were run."""
        return list(dict.fromkeys([*self.paper.rows, *(method for method, _ in self.of)]))

    def title(self) -> str:
        return f'{self.paper.title}. {described(self.recipe)}'

    def notes(self) -> list[str]:
        """What has to be known beside the numbers."""
        best = ', '.join(label(method) for method in BEST_EPOCH if method in self.paper.rows)
        notes = ['Test accuracy in percent at the last epoch, mean ± standard deviation of n seeds'
                 + (f'; of {best} at the best epoch, as in the paper.' if best else '.')]
        if self.pixels != 32:
            notes.append("The paper's numbers are for 32 pixels, so they are left out. Between images of different sizes "
                         'AT, FT and AB are not what was published: docs/methods.md.')
        elif self.shortened:
            notes.append("The paper's numbers are from full schedules: beside these shortened ones they are not comparable.")
        else:
            notes.append("▲ better than the paper's number, ▼ worse; what the paper quotes was trained for 240 epochs.")
        notes.append('† Not as published: ' + '; '.join(f'{label(method)}, {why}' for method, why in NOT_AS_PUBLISHED.items()
                                                       if method in self.methods()) + '.')
        return notes + training_notes(self.records)

    def grid(self) -> list[tuple[str, list[Entry]]]:
        return [(label(method) + (' †' if method in NOT_AS_PUBLISHED else ''),
                 [self.entry(method, pair) for pair in self.paper.pairs]) for method in self.methods()]

    def markdown(self) -> str:
        heads = ' | '.join(f'{teacher} →<br>{student}' for teacher, student in self.paper.pairs)
        lines = [f'### {self.title()}', '', f'| | {heads} |', '|---' * (len(self.paper.pairs) + 1) + '|']
        lines += [f'| {name} | ' + ' | '.join('<br>'.join(entry.lines()) for entry in entries) + ' |'
                  for name, entries in self.grid()]
        return '\n'.join([*lines, '', *(f'{note}  ' for note in self.notes()), ''])

    def html(self) -> str:
        def row(name: str, cells: list[str]) -> str:
            return f'<tr><th>{html.escape(name)}</th>{"".join(cells)}</tr>'

        heads = [f'<th>{teacher} →<br>{student}</th>' for teacher, student in self.paper.pairs]
        rows = [row('', heads)]
        for name, entries in self.grid():
            rows.append(row(name, [f'<td class="{entry.kind if entry.ours else "none"}">{"<br>".join(entry.lines())}</td>'
                                         for entry in entries]))
        notes = ''.join(f'<p>{html.escape(note)}</p>' for note in self.notes())
        title, body = html.escape(self.title()), '\n'.join(rows)
        return ('<!doctype html><html lang="en"><head><meta charset="utf-8">'
                f'<title>{title}</title><style>{STYLE}</style></head><body><table><caption>{title}</caption>\n{body}\n</table>{notes}</body></html>\n')

    def figure(self) -> Figure:
        grid, columns = self.grid(), len(self.paper.pairs) + 1
        figure = Figure(figsize=(1.75 * columns, 0.5 * len(grid) + 2.2), layout='constrained')
        axes = figure.subplots()
        axes.set(xlim=(0, columns), ylim=(len(grid) + 1, 0), title=self.title())
        axes.axis('off')
        for x, (teacher, student) in enumerate(self.paper.pairs, 1):
            axes.text(x + 0.5, 0.5, f'{teacher} →\n{student}', ha='center', va='center', weight='bold', size=9)
        for y, (name, entries) in enumerate(grid, 1):
            axes.text(0.05, y + 0.5, name, va='center', weight='bold', size=9)
            for x, entry in enumerate(entries, 1):
                colour = dict(better=BETTER, worse=WORSE).get(entry.kind, 'white')
                axes.fill([x, x + 1, x + 1, x], [y, y, y + 1, y + 1], facecolor=colour, edgecolor='0.7')
                axes.text(x + 0.5, y + 0.5, '\n'.join(entry.lines()), ha='center', va='center', size=8,
                          color='black' if entry.ours else '0.5')
        notes = (textwrap.fill(note, 26 * columns) for note in self.notes()[:3])        # so many letters to the width
        figure.supxlabel('\n'.join(notes), size=8, x=0.01, ha='left')
        return figure

    def write(self) -> list[Path]:
        """The table as Markdown, HTML and PNG beside the results."""
        RESULTS.mkdir(parents=True, exist_ok=True)
        files = [RESULTS / f'{self.table}__{self.recipe}.{suffix}' for suffix in ('md', 'html', 'png')]
        files[0].write_text(self.markdown(), encoding='utf-8')
        files[1].write_text(self.html(), encoding='utf-8')
        self.figure().savefig(files[2], dpi=150)
        return files


class MarkdownTable:
    """A table with one recipe that is written as Markdown only: all its results. ``tables`` has what is known of each."""
    tables: dict[str, NamedTuple]
    full: str                                            # the label of the full schedule

    def __init__(self, name: str, recipe: str, records: list[dict]):
        self.name, self.recipe, self.table, self.records = name, recipe, self.tables[name], records
        self.of = {(record['method'], record['pair']): record for record in records}

    @classmethod
    def read(cls, name: str, recipe: str) -> 'MarkdownTable':
        """With the results that there are, maybe none."""
        return cls(name, recipe, [json.loads(file.read_text()) for file, its in files(name).items() if its == recipe])

    @classmethod
    def all_markdown(cls, name: str) -> str:
        """All of a table's variants, for the documentation; without a run, the empty one of the full schedule."""
        return '\n'.join(cls.read(name, recipe).markdown() for recipe in sorted(set(files(name).values())) or [cls.full])

    def markdown(self) -> str:
        raise NotImplementedError

    def write(self) -> list[Path]:
        """The table beside the results."""
        RESULTS.mkdir(parents=True, exist_ok=True)
        file = RESULTS / f'{self.name}__{self.recipe}.md'
        file.write_text(self.markdown(), encoding='utf-8')
        return [file]


def files(table: str) -> dict[Path, str]:
    """The results of a table, each with its recipe's label, the end of its name."""
    return {file: file.stem.split('__', 2)[2] for file in sorted((RESULTS / table).glob('*__*__*.json'))}


def variant(table: str, recipe: str) -> Variant:
    """The results of one recipe; there may be none yet."""
    return Variant(table, recipe, [json.loads(file.read_text()) for file, its in files(table).items() if its == recipe])


def markdown(table: str) -> str:
    """All of a table's variants, for the documentation."""
    found = [variant(table, recipe).markdown() for recipe in sorted(set(files(table).values()))]
    return '\n'.join(found) or 'No runs yet.'


def over_alone(table: str, pair: tuple[str, str]) -> str:
    """Markdown: by how many points each method is ahead of the student alone, a column for each of a table's variants."""
    variants = [variant(table, recipe) for recipe in sorted(set(files(table).values()), reverse=True)]
    variants = [each for each in variants if each.entry('student', pair).ours]
    lines = ['| | ' + ' | '.join(f'{each.pixels} pixels, {length(each.recipe)}' for each in variants) + ' |',
             '|---' * (len(variants) + 1) + '|',
             '| student alone | ' + ' | '.join(f'{mean(each.entry("student", pair).ours):.2f}' for each in variants) + ' |']
    gains = {}
    methods = (method for each in variants for method in each.methods() if method not in ('teacher', 'student'))
    for method in dict.fromkeys(methods):
        of = [(each.entry(method, pair).ours, each.entry('student', pair).ours) for each in variants]
        if any(ours for ours, _ in of):
            gains[method] = [mean(ours) - mean(alone) if ours else None for ours, alone in of]
    for method, points in sorted(gains.items(), key=lambda item: max(x for x in item[1] if x is not None), reverse=True):
        lines.append(f'| {label(method)} | ' + ' | '.join('–' if x is None else f'{x:+.2f}' for x in points) + ' |')
    return '\n'.join(lines) if variants else 'No runs yet.'
