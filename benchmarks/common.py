"""What the benchmarks share: their command line, a clock, turns, and where their numbers are kept.

``python -m experiments render`` puts the tables into the pages.
"""
import argparse
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import torch
from rich.progress import track
from torch.utils.data import DataLoader

from mmcrrcd.command_line import one_line_errors
from mmcrrcd.environment import about_this_run, conditions
from mmcrrcd.files import write_json
from mmcrrcd.visualization.markdown import markdown_table

KEPT = Path(__file__).resolve().parent / 'results'


def now() -> float:
    """Seconds, after all that the device has to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds(function: Callable[[], object], times: int = 1, warmup: int = 0) -> float:
    """What so many calls take together, after others to warm up."""
    for _ in range(warmup):
        function()
    start = now()
    for _ in range(times):
        function()
    return now() - start


class Timed:
    """A loader of ``warmup`` batches, and of ``number`` more that together take ``seconds``, with what is done to them."""

    def __init__(self, loader: DataLoader, warmup: int, number: int):
        self.loader, self.warmup, self.number = loader, warmup, number

    def __getattr__(self, name: str):
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return self.warmup + self.number

    def __iter__(self) -> Iterator:
        batches = iter(self.loader)
        for step in range(len(self)):
            if step == self.warmup:
                start = now()
            yield next(batches)
        self.seconds = now() - start


def benchmark(name: str, doc: str, measure: Callable[[argparse.Namespace], dict], table: Callable[[dict], str],
              **options: tuple) -> Callable[[list[str] | None], None]:
    """The program of a benchmark: measures, keeps what came out as JSON and Markdown, and prints the table.

    Args:
        options: their defaults (None is that of a number) and what they are; of a list of names these are the choices.
    """
    def main(argv: list[str] | None = None) -> None:
        parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument('--data-root', default='data/cifar100')
        for option, (default, what) in options.items():
            kind = dict(type=str if isinstance(default, str) else int)
            if default is False:
                kind = dict(action='store_true')
            elif isinstance(default, list):
                kind = dict(nargs='*', **dict(type=int) if isinstance(default[0], int) else dict(choices=default))
            parser.add_argument(f'--{option}', default=default, help=what, **kind)
        parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='threads of PyTorch')
        parser.add_argument('--json', type=Path, default=KEPT / f'{name}.json')
        args = parser.parse_args(argv)
        torch.set_num_threads(args.threads)
        args.json.parent.mkdir(parents=True, exist_ok=True)      # before minutes are spent
        with one_line_errors():
            result = about_this_run() | measure(args)
        write_json(args.json, result)
        args.json.with_suffix('.md').write_text(table(result) + '\n', encoding='utf-8')
        print(table(result))

    return main


def in_turns(turns: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each of ``turns`` measures, in every round, where all take turns: so a machine's moods fall on all alike."""
    found = {name: [] for name in turns}
    for i in track(range(rounds), 'rounds'):
        for name in random.Random(i).sample(list(turns), len(turns)):            # what comes after what changes
            found[name].append(turns[name]())
    return found


def with_range(values: list[float], decimals: int) -> str:
    """Median, least and most."""
    return f'{median(values):,.{decimals}f} ({min(values):,.{decimals}f} – {max(values):,.{decimals}f})'


def mega(size: int | None) -> str:
    """Bytes in millions."""
    return '–' if size is None else f'{size / 1e6:,.1f}' if size < 1e8 else f'{size / 1e6:,.0f}'


def turns_rows(found: dict[str, list[float]], decimals: int, *others: dict[str, str]) -> list[list[str]]:
    """A row a turn: its name, what it measured, and a ratio for each of ``others``, from a turn to what it is compared with."""
    def over(name: str, other: str | None) -> str:
        return with_range([a / b for a, b in zip(found[name], found[other])], 2) if other in found else '–'

    return [[name, with_range(values, decimals), *(over(name, other.get(name)) for other in others)]
            for name, values in found.items()]


def page(result: dict, head: list[str], rows: list[list[str]], note: str) -> str:
    """Markdown of a result: its table, and below what was measured and where."""
    return f'{markdown_table(head, rows)}\n\n{note} {conditions(result)}'


def sight(result: dict) -> str:
    """Which config a result is of, and what its student sees."""
    side = result['resolution'] or 32
    return f'{Path(result["config"]).stem}, the student sees {side}×{side} px, batch {result["batch"]}'
