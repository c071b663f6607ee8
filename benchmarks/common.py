"""Where a benchmark's numbers are kept, and the table beside them; ``python -m experiments render`` puts it into the pages."""
import json
from pathlib import Path

KEPT = Path(__file__).resolve().parent / 'results'


def keep(result: dict, file: Path, table: str) -> None:
    """Writes what a benchmark has measured, as JSON and as Markdown, and prints its table."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=1) + '\n')
    file.with_suffix('.md').write_text(table + '\n', encoding='utf-8')
    print(table)
