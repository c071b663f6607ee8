"""What a number needs beside it, as a sentence, and where it is kept."""
import json
from pathlib import Path

from mmcrrcd.environment import about_this_run

__all__ = ['KEPT', 'about_this_run', 'conditions', 'keep']
HERE = Path(__file__).resolve().parent
KEPT = (Path('benchmarks') if '.mim' in HERE.parts else HERE) / 'results'      # of a wheel: where the command is given


def conditions(run: dict) -> str:
    """One sentence: where, with what, by which command."""
    versions = ', '.join(f'{package} {version}' for package, version in run['versions'].items())
    return f'{run["hardware"]}, {run["threads"]} thread(s); {versions}. `{run["command"]}`'


def keep(result: dict, file: Path, table: str) -> None:
    """Writes what a benchmark has measured, as JSON, and prints its table."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=1) + '\n')
    print(table)
