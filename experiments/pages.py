"""Writes the tables into README and docs: between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` nothing is typed by hand.

NAME is a table here, or a Markdown file: of a benchmark in benchmarks/results/, of the campaign in tests/campaign/results/, of
an earlier measurement in records/measured/; or the model zoo, or folders of one's own images.
"""
import json
import re
from pathlib import Path
from statistics import median

from mmcrrcd import zoo
from mmcrrcd.errors import InputError
from mmcrrcd.visualization.markdown import markdown_table

from . import figures, metafiles, records, report
from .compose import ROOT
from .studies import STUDIES
from .tables import TABLES

MARKED = r'<!-- begin (\w+) -->\n.*?<!-- end \1 -->'


def zoo_markdown() -> str:
    """A row for each student of the model zoo."""
    rows = []
    for name in zoo.names():
        known, size = zoo.read_metafile(zoo.find(name)), zoo.find(name).stat().st_size
        student, teacher = (', '.join(f'{value:.2f} at {side} px' for side, value in known.get(key, {}).items()) or '–'
                            for key in ('accuracy', 'teacher'))
        rows.append([f'`{name}`', f'{known["data"]}, {len(known["classes"])} classes', student, teacher, f'{known["images"]:,}',
                     f'{known["parameters"]:,}', f'{known["macs"] / 1e6:.2f}', f'{size / 1000:.0f}', f'`{known["command"]}`'])
    return markdown_table(['name', 'data', 'accuracy (%)', 'its teacher (%)', 'n', 'parameters', 'M MACs', 'kB', 'trained by'],
                          rows)


def own_images_markdown() -> str:
    """Folders of one's own images, from a clone to an int8 file: minutes, accuracy, files; and what distillation brought."""
    record = json.loads((records.RECORDS / 'measured' / 'own_images.json').read_text(encoding='utf-8'))
    runs, files = [], []
    for folder in record['folders']:
        minutes = [f'{folder["cpu_seconds"][name] / 60:.1f}' for name in ('train', 'export', 'predict')]
        runs.append([folder['what'], f'{folder["teacher"]:.1f} %', f'{folder["student"]:.1f} %', *minutes])
        files += [[folder['name'], each['file'], f'{each["kB"]}', f'{each["parameters"]:,}', f'{each["million_macs"]:.2f}',
                   f'{each["accuracy"]:.1f} %', *(f'{each[name]:.2f}' for name in ('median_ms', 'p95_ms'))]
                  for each in folder['files']]
    compared = [[each['what'], f'{each["accuracy"]:.1f} %'] for each in record['compared']['rows']]
    return '\n\n'.join([
        markdown_table(['folder', 'teacher, 64 px', 'student, 16 px', 'training, CPU minutes', 'export', 'predict'], runs),
        markdown_table(['', 'file', 'kB', 'parameters', 'M MACs', 'accuracy', 'median, ms', '95 %, ms'], files),
        markdown_table([record['compared']['title'], 'accuracy'], compared), record['notes']])


GOALS = [                                                # what, record, a rate, the one it is over, goal, bound or None
    ('8×8 px, VGG8: KD from the cache over the live teacher', 'step_time_8px', 'cached kd', 'memory kd', '5', 'bare student'),
    ('32×32 px, ShuffleNetV1: CRRCD from the cache over the live teacher', 'step_time_wrn50', 'cached crrcd', 'memory crrcd',
     '8', 'bare student'),
    ("32×32 px, ResNet20: KD from the cache over RepDistiller's loop", 'step_time', 'cached kd', 'reference kd', '3.5',
     'bare student'),
    ("the same, CRRCD over RepDistiller's CRD", 'step_time', 'cached crrcd', 'reference crd', '12', 'bare student'),
    ("8×8 px: a step of KD over the bare student's", 'step_time_8px', 'bare student', 'cached kd', 'at most 1.15', None),
    ('8×8 px: a step of CRRCD over one of KD', 'step_time_8px', 'cached kd', 'cached crrcd', 'at most 1.1', None),
    ('8×8 px: the same of CRRCD without a queue', 'step_time_8px', 'cached kd', 'cached crrcd, no queue', 'at most 1.1', None),
    ('32×32 px: the same', 'step_time', 'cached kd', 'cached crrcd', 'at most 1.03', None),
    ('8×8 px: the same of the learned form', 'step_time_8px', 'cached kd', 'cached crrcd, learned', 'at most 1.25', None),
    ("building the cache over the teacher's forward pass", 'cache_time', 'building the cache',
     "the teacher's forward pass, at its best batch size", '0.9', None)]


def speed_goals_markdown() -> str:
    """Each goal beside the median ratio over the rounds, and beside that of what bounds it."""
    rows = []
    for what, name, ours, other, goal, bound in GOALS:
        rates = json.loads((ROOT / 'benchmarks' / 'results' / f'{name}.json').read_text(encoding='utf-8'))['rates']
        reached, floor = (f'{median(a / b for a, b in zip(rates[each], rates[other])):.2f}' if each else '1'
                          for each in (ours, bound))
        rows.append([what, goal, reached, floor])
    return markdown_table(['ratio of rates or times, from the cache', 'goal', 'reached', 'floor or bound'], rows)


BLOCKS = {
    'speed_goals': speed_goals_markdown,
    'model_zoo': zoo_markdown,
    'own_images': own_images_markdown,
    'headline': report.headline_markdown,
    'results': report.results_markdown,
    'status': report.status_markdown,
    'figure3': lambda: report.figure3_markdown('../experiments/records/'),
}


def block(name: str) -> str:
    """What stands between the marks of this name."""
    if name in BLOCKS:
        return BLOCKS[name]()
    if name in TABLES:
        return report.table_markdown(name)
    if name.removeprefix('study_') in STUDIES:
        return report.study_markdown(name.removeprefix('study_'))
    for folder in (records.RECORDS / 'measured', ROOT / 'benchmarks' / 'results', ROOT / 'tests' / 'campaign' / 'results'):
        if (folder / f'{name}.md').exists():
            return (folder / f'{name}.md').read_text(encoding='utf-8').rstrip('\n')
    raise InputError(f'there is no table {name}')


def rendered(text: str) -> str:
    """``text`` with every marked table made anew."""
    def made(match: re.Match) -> str:
        whole = re.sub(r'(?<=\d) ± (?=\d)|(?<=\(n) = ', lambda sign: sign[0].replace(' ', '\u00a0'), block(match[1]))
        return f'<!-- begin {match[1]} -->\n{whole}\n<!-- end {match[1]} -->'

    return re.sub(MARKED, made, text, flags=re.DOTALL)


def pages() -> list[Path]:
    return [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('**/*.md')), ROOT / 'configs' / 'face' / 'README.md']


def write(experiment: str) -> list[Path]:
    """Table and figures beside the records."""
    file = records.RECORDS / f'{experiment}.md'
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(report.figure3_markdown() if experiment == 'figure3' else block(experiment), encoding='utf-8')
    pictures = {records.RECORDS / f'{name}.png': figure for name, figure in figures.of(experiment).items()}
    for picture, figure in pictures.items():
        figure.savefig(picture, dpi=120)
    return [file, *pictures]


def render() -> list[Path]:
    """Writes all pages, metafiles, tables and figures of which there are records; returns what was written."""
    written = metafiles.write()
    for page in pages():
        text = page.read_text(encoding='utf-8')
        if (new := rendered(text)) != text:
            page.write_text(new, encoding='utf-8')
            written.append(page)
    for name in [*TABLES, *(f'study_{name}' for name in STUDIES)]:
        written += write(name) if (records.RECORDS / name).is_dir() else []
    for name, draw in figures.PICTURES.items():
        if figure := draw():
            figure.savefig(ROOT / 'docs' / f'{name}.png', dpi=120)
            written.append(ROOT / 'docs' / f'{name}.png')
    return written
