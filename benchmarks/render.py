"""Writes the tables and curves of the results into README.md and docs/: ``python benchmarks/render.py``.

A page marks the place of a table with ``<!-- begin NAME -->`` and ``<!-- end NAME -->``; between them nothing is typed by hand.
"""
import json
import re
from pathlib import Path

import critic_alone
import critic_forms
import results

ROOT = Path(__file__).resolve().parents[1]
TABLES = {
    'critic_alone': lambda: critic_alone.table(json.loads(critic_alone.RESULT.read_text())),
    'critic_forms': critic_forms.table,
    'headline': results.headline,
    'results': results.table,
}


def rendered(text: str) -> str:
    """``text`` with every marked table made anew."""
    def table(match: re.Match) -> str:
        name = match[1]
        return f'<!-- begin {name} -->\n{TABLES[name]()}\n<!-- end {name} -->'

    return re.sub(r'<!-- begin (\w+) -->\n.*?<!-- end \1 -->', table, text, flags=re.DOTALL)


def pages() -> list[Path]:
    return [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


def main() -> None:
    for page in pages():
        page.write_text(rendered(page.read_text(encoding='utf-8')), encoding='utf-8')
    results.plot().savefig(ROOT / 'docs' / 'results.png', dpi=120)


if __name__ == '__main__':
    main()
