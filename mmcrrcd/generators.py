"""Python's, NumPy's and torch's random generators, all three at once."""
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def seed_all(*numbers: int, gpus: bool = True) -> None:
    """Seeds them from a few numbers; without ``gpus`` of torch's only the one on the CPU."""
    seed = int(np.random.SeedSequence(numbers).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    (torch if gpus else torch.random.default_generator).manual_seed(seed)


@contextmanager
def generators_kept(gpus: bool = True) -> Iterator[None]:
    """After the block they are where they were. With ``gpus`` so are those of GPUs."""
    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(range(torch.cuda.device_count()) if gpus and torch.cuda.is_initialized() else []):
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


@contextmanager
def generators_seeded(*numbers: int) -> Iterator[None]:
    """In the block they are seeded from a few numbers, on the CPU; afterwards they go on as before."""
    with generators_kept(gpus=False):
        seed_all(*numbers, gpus=False)
        yield
