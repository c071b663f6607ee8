"""Sessions of onnxruntime, which run networks in ONNX files."""
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from mmcrrcd.errors import InputError, explained, first_line


def need(*packages: str) -> None:
    """Raises InputError, with the command that helps, where one of ``packages`` is missing."""
    for package in packages:
        try:
            __import__(package)
        except ImportError as error:
            raise InputError(f"{package} is missing: pip install 'mmcrrcd[onnx]'") from error


def open_session(model: str | bytes, device: torch.device | None = None, threads: int | None = None):
    """An onnxruntime session of a file, or of its content.

    Args:
        device: on a GPU it needs onnxruntime's CUDA provider; None for the CPU.
        threads: by default torch's number.

    Raises:
        InputError: onnxruntime is not installed, or cannot run it, or there is no such file.
    """
    if isinstance(model, str) and not Path(model).is_file():
        raise InputError(f'there is no ONNX file at {model}')
    need('onnxruntime')
    import onnxruntime
    onnxruntime.disable_telemetry_events()                 # its builds for Windows report on their use
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3                         # no warnings: many files state an output of one image, and give more
    options.intra_op_num_threads = threads or torch.get_num_threads()
    providers = ['CPUExecutionProvider']
    if device is not None and device.type == 'cuda' and 'CUDAExecutionProvider' in onnxruntime.get_available_providers():
        providers.insert(0, ('CUDAExecutionProvider', dict(device_id=device.index)))
    with explained(f'onnxruntime cannot run {model if isinstance(model, str) else "the network"}', say=first_line):
        return onnxruntime.InferenceSession(model, options, providers)


@contextmanager
def running(file: str) -> Iterator[None]:
    """A block that runs a session. Raises InputError, which names the file, where onnxruntime cannot."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:                           # onnxruntime's have no class in common
        if type(error).__module__.startswith('onnxruntime'):
            raise InputError(f'onnxruntime cannot run {file}: {first_line(error)}') from error
        raise


def told_shape(shape) -> str:
    """A shape as one writes it."""
    return f'({", ".join(str(size) for size in shape)})'


def told(values) -> str:
    """Inputs or outputs of a file: name, type and shape of each."""
    return ' and '.join(f'{x.name}: {x.type} {told_shape(x.shape)}' for x in values)
