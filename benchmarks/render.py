"""Writes the tables and curves of the results into the pages: ``python benchmarks/render.py``.

A page marks the place of a table with ``<!-- begin NAME -->`` and ``<!-- end NAME -->``; between them nothing is typed by hand.
"""
import json
import re
from pathlib import Path
from types import ModuleType

import agreement
import batch_norm
import classifier_memory
import critic_alone
import critic_forms
import data_time
import figure3
import loss_cost
import precision
import probes
import reproduced
import results
import step_graphs
import step_parts
import step_time
from face_tables import FaceResults
from low_resolution import LowResults
from paper_tables import PAPER_TABLES
from transfer import TransferResults

ROOT = Path(__file__).resolve().parents[1]


def of_one_run(benchmark: ModuleType, file: Path | None = None) -> str:
    """The table of a benchmark that keeps the result of its last run, or of another ``file`` of its results."""
    file = file or benchmark.RESULT
    return benchmark.table(json.loads(file.read_text())) if file.exists() else 'Not measured yet.'


TABLES = {
    'agreement': lambda: of_one_run(agreement),
    'agreement_32px': lambda: of_one_run(agreement, agreement.RESULT.with_name('agreement_32px.json')),
    'batch_norm': lambda: of_one_run(batch_norm),
    'cifar100': lambda: LowResults.all_markdown('cifar100'),
    'classifier_memory': lambda: of_one_run(classifier_memory),
    'critic_alone': lambda: of_one_run(critic_alone),
    'critic_forms': critic_forms.table,
    'data_time': lambda: of_one_run(data_time),
    'fig3': figure3.markdown,
    'headline': results.headline,
    'lfw': lambda: FaceResults.all_markdown('lfw'),
    'loss_cost': lambda: of_one_run(loss_cost),
    'orl': lambda: FaceResults.all_markdown('orl'),
    'over_alone': lambda: reproduced.over_alone('table1', ('resnet56', 'resnet20')),
    'over_kd': results.over_kd,
    'precision': lambda: of_one_run(precision),
    'probes': probes.table,
    'results': results.table,
    'step_graphs': lambda: of_one_run(step_graphs),
    'step_parts': lambda: of_one_run(step_parts),
    'step_time': lambda: of_one_run(step_time),
    'table1': lambda: reproduced.markdown('table1'),
    'table2': lambda: reproduced.markdown('table2'),
    'table3': lambda: LowResults.all_markdown('table3'),
    'table4_stl10': lambda: TransferResults.all_markdown('table4_stl10'),
    'table4_tinyimagenet': lambda: TransferResults.all_markdown('table4_tinyimagenet'),
    'table5': lambda: FaceResults.all_markdown('table5'),
    'table6': lambda: FaceResults.all_markdown('table6'),
    'table7': lambda: FaceResults.all_markdown('table7'),
    'tinyimagenet': lambda: LowResults.all_markdown('tinyimagenet'),
}

MARKED = r'<!-- begin (\w+) -->\n.*?<!-- end \1 -->'


def rendered(text: str) -> str:
    """``text`` with every marked table made anew."""
    def table(match: re.Match) -> str:
        name = match[1]
        return f'<!-- begin {name} -->\n{TABLES[name]()}\n<!-- end {name} -->'

    return re.sub(MARKED, table, text, flags=re.DOTALL)


def pages() -> list[Path]:
    return [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md')), ROOT / 'configs' / 'face' / 'README.md']


def main() -> None:
    for page in pages():
        page.write_text(rendered(page.read_text(encoding='utf-8')), encoding='utf-8')
    for curves in figure3.all_curves():
        curves.write()
    reading = dict.fromkeys(PAPER_TABLES, reproduced.variant)
    for kind in (LowResults, TransferResults, FaceResults):
        reading |= dict.fromkeys(kind.tables, kind.read)
    for name, read in reading.items():
        for recipe in set(reproduced.files(name).values()):
            read(name, recipe).write()
    results.plot().savefig(ROOT / 'docs' / 'results.png', dpi=120)
    if loss_cost.RESULT.exists():
        loss_cost.plot(json.loads(loss_cost.RESULT.read_text())).savefig(ROOT / 'docs' / 'speed_scale.png', dpi=120)


if __name__ == '__main__':
    main()
