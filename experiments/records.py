"""A record: what one run came to, in a JSON file of its own, ``records/EXPERIMENT/NAME__sSEED.json``.

It holds what the run is (``experiment``, ``method``, ``pair``, ``recipe``, ``seed``), the text of its ``config``, ``epochs``
(a row for each: accuracy in percent where it was tested, means of the losses, seconds), ``results`` (what a table shows),
``seconds`` (``wall`` of the training with its tests, and of a ``step``), ``teacher`` and ``provenance``.
"""
import json
import subprocess
from datetime import datetime, timezone
from math import sqrt
from pathlib import Path
from statistics import mean, median, stdev


from .compose import ROOT

RECORDS = Path(__file__).resolve().parent / 'records'


def read(experiment: str) -> list[dict]:
    """The records of a table, figure or study, in the order of their files."""
    return [json.loads(file.read_text(encoding='utf-8')) for file in sorted((RECORDS / experiment).glob('*.json'))]


def commit() -> str | None:
    """Of the checkout that this package lies in, with '+' where files differ from it; None where it is no checkout."""
    def git(*command: str) -> str:
        return subprocess.run(['git', '-C', str(ROOT), *command], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git('rev-parse', 'HEAD')[:12] + ('+' if git('status', '--porcelain', '--untracked-files=no') else '')
    except (OSError, subprocess.CalledProcessError):
        return None


def provenance(processes: list[dict], command: str, commit: str | None) -> dict:
    """Of a run of this command that took these processes, each as :func:`mmcrrcd.environment.about_this_run` tells."""
    hardware = ', then '.join(dict.fromkeys(each['hardware'] for each in processes))
    return dict(commit=commit, command=command, date=datetime.now(timezone.utc).date().isoformat(),
                versions=processes[-1]['versions'], hardware=hardware, threads=processes[-1]['threads'])


def seconds(rows: list[dict], steps: int) -> dict:
    """Of a training with these rows of an epoch each, ``steps`` in an epoch."""
    return dict(wall=round(sum(row.get('train_seconds', 0) + row.get('test_seconds', 0) for row in rows), 2),
                step=round(median(row['train_seconds'] for row in rows) / steps, 5))


def spread(values: list[float]) -> str:
    """Mean ± standard deviation of values, and how many they are."""
    if not values:
        return '–'
    deviation = f' ± {stdev(values):.2f}' if len(values) > 1 else ''
    return f'{mean(values):.2f}{deviation} (n = {len(values)})'


def paired(values: dict[int, float], reference: dict[int, float]) -> list[float]:
    """Differences to the reference, of the seeds that both have."""
    return [values[seed] - reference[seed] for seed in values if seed in reference]


def paired_difference(values: dict[int, float], reference: dict[int, float]) -> str:
    """Mean difference ± its standard error, over the seeds that both have."""
    points = paired(values, reference)
    if not points:
        return '–'
    error = f' ± {stdev(points) / sqrt(len(points)):.2f}' if len(points) > 1 else ''
    return f'{mean(points):+.2f}{error} (n = {len(points)})'
