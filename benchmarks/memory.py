"""Memory: the peak of a process or a GPU, and what a forward pass leaves for the backward pass."""
import contextlib
import ctypes
import gc
import multiprocessing
import os
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch import Tensor
from torch._subclasses import FakeTensor


def in_own_process(function: Callable, *args):
    """What ``function`` returns in a new process, forked from one that has imported everything and computed nothing."""
    os.environ.setdefault('PYTORCH_NVML_BASED_CUDA_CHECK', '1')          # or imports that look for a GPU make forks useless
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['mmcrrcd.models', 'mmpretrain'])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args).result()


class PeakMemory:
    """Bytes in use at the most since this was made, over those in use then. None where that cannot be known."""

    def __init__(self):
        self.start = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self.start = torch.cuda.memory_allocated()
            return
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)              # or what is freed already would be used first, for nothing
            Path('/proc/self/clear_refs').write_text('5')                # the peak is the present from here on
            self.start = self.of_process('VmRSS')

    @staticmethod
    def of_process(name: str) -> int:
        return 1024 * int(re.search(rf'{name}:\s*(\d+) kB', Path('/proc/self/status').read_text())[1])

    def read(self) -> int | None:
        if self.start is None:
            return None
        return (torch.cuda.max_memory_allocated() if torch.cuda.is_available() else self.of_process('VmHWM')) - self.start


def memory_of(tensors) -> dict[int, int]:
    """Address -> bytes of the memory of ``tensors``, each once; the fake ones that torch.compile keeps have none."""
    storages = [x.untyped_storage() for x in tensors if not isinstance(x, FakeTensor)]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def saved_bytes(forward: Callable[[], Tensor]) -> int:
    """Bytes of tensors that ``forward`` makes and that are there until the backward pass.

    Autograd says what it saves; recomputed parts (``torch.utils.checkpoint``) hold their inputs without telling it.
    """
    def there() -> dict[int, int]:
        return memory_of(x for x in gc.get_objects() if issubclass(type(x), Tensor))

    def pack(x: Tensor) -> Tensor:
        saved.update(memory_of([x]))
        return x

    gc.collect()
    before, saved = there(), {}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        loss = forward()
    saved.update(there())
    del loss
    return sum(size for address, size in saved.items() if address not in before)
