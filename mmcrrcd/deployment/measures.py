"""What each file of a student costs, and what it knows."""
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from mmengine.analysis import FlopAnalyzer
from rich.table import Table
from torch import nn

SECONDS, RUNS, WARM_UP = 2.0, 500, 10


class Measured(NamedTuple):
    """A file of a student: ``size`` in bytes, ``accuracy`` in percent, None without test images. ``median`` and ``p95`` are
    milliseconds for one image on one thread.
    """
    file: str
    size: int
    parameters: int
    macs: int
    accuracy: float | None
    median: float
    p95: float


def count_macs(network: nn.Module, height: int, width: int) -> int:
    """Multiply-accumulates of the convolutions and linear layers for one image."""
    found = FlopAnalyzer(network, torch.zeros(1, 3, height, width, device=next(network.parameters()).device))
    operators = found.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
    return int(operators['conv'] + operators['linear'])


def latency(call: Callable[[np.ndarray], object], image: np.ndarray) -> tuple[float, float]:
    """Median and 95th percentile in milliseconds of ``call`` on a batch of one, on one thread of torch."""
    threads, times, start = torch.get_num_threads(), [], time.perf_counter()
    torch.set_num_threads(1)
    try:
        while len(times) < WARM_UP + RUNS and (time.perf_counter() - start < SECONDS or len(times) < 2 * WARM_UP):
            before = time.perf_counter()
            call(image)
            times.append(1000 * (time.perf_counter() - before))
    finally:
        torch.set_num_threads(threads)
    times = times[WARM_UP:]
    return float(np.median(times)), float(np.percentile(times, 95))


def measure(file: Path, network: nn.Module, size: tuple[int, int], ask: Callable[[np.ndarray], np.ndarray],
            images: np.ndarray, labels: np.ndarray | None) -> Measured:
    """A row of the table.

    Args:
        network: the student in PyTorch, and ``size``, height and width of what it sees.
        ask: from images (N, h, w, 3) uint8 to probabilities, on one thread, by the file.
        images, labels: of the test. Labels are None where these are other images.
    """
    accuracy = None
    if labels is not None:
        hits = [ask(images[i:i + 256]).argmax(1) == labels[i:i + 256] for i in range(0, len(images), 256)]
        accuracy = 100 * float(np.concatenate(hits).mean())
    median, p95 = latency(ask, images[:1])
    return Measured(str(file), file.stat().st_size, sum(p.numel() for p in network.parameters()), count_macs(network, *size),
                    accuracy, median, p95)


def tabulate(rows: list[Measured]) -> Table:
    """The table for a terminal. In one of 80 columns a name of usual length takes one line."""
    table = Table(caption='latency: ms for one image, on one thread', caption_justify='left')
    table.add_column('file', overflow='fold')
    for heading in ('kB', 'parameters', 'M MACs', 'accuracy', 'median', '95 %'):
        table.add_column(heading, justify='right', no_wrap=True)
    for row in rows:
        table.add_row(Path(row.file).name, f'{row.size / 1000:.0f}', f'{row.parameters:,}', f'{row.macs / 1e6:.2f}',
                      '–' if row.accuracy is None else f'{row.accuracy:.2f} %', f'{row.median:.2f}', f'{row.p95:.2f}')
    return table
