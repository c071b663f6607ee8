"""Networks from checkpoint files of any origin, loaded so that they cannot run code."""
import pickle
import re
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import nn

from mmcrrcd.errors import InputError


def _log_method(owner: type, name: str):
    """Stands in for ``getattr``, by which mmengine's log refers to its own four averages; refuses everything else."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'current', 'mean'):
        raise pickle.UnpicklingError(f'refused to look up {name}')
    return getattr(HistoryBuffer, name)


# mmengine keeps its training log in its checkpoints, as objects that torch.load(weights_only=True) does not know.
# None of these can run code: they are built from numbers.
_LOG_TYPES = [HistoryBuffer, (_log_method, 'builtins.getattr'), np.ndarray, np.dtype,
              np._core.multiarray._reconstruct, np._core.multiarray.scalar,
              (np._core.multiarray._reconstruct, 'numpy.core.multiarray._reconstruct'),
              (np._core.multiarray.scalar, 'numpy.core.multiarray.scalar'),
              *(type(np.dtype(t)) for t in ('f4', 'f8', 'i4', 'i8', 'u1', 'bool'))]


class UnfinishedTraining(InputError):
    """The last checkpoint of a work directory is not the end of its training."""


def safe_load(path: str | Path, device: str = 'cpu') -> dict:
    """``torch.load`` that only ever builds tensors, numbers and mmengine's log."""
    with torch.serialization.safe_globals(_LOG_TYPES):
        return torch.load(path, map_location=device, weights_only=True)


def read_checkpoint(file: Path) -> dict:
    """What a checkpoint holds.

    Raises:
        InputError: it is none, or has more in it than tensors, numbers and mmengine's log.
    """
    try:
        checkpoint = safe_load(file)
    except Exception as error:                           # torch's own words end in how to load it unsafely
        found = re.search(r'Unsupported (?:global: GLOBAL|class) ([\w.]+)', str(error))
        reason = f'it has more in it than numbers, {found[1]}' if found else 'it is damaged, or something else'
        raise InputError(f'{file} is not a checkpoint that can be loaded safely: {reason}') from error
    if not isinstance(checkpoint, dict):
        raise InputError(f'{file} is not a checkpoint: it holds a {type(checkpoint).__name__}, not a dict of weights')
    return checkpoint


def find_checkpoint(path: str | Path) -> Path:
    """``path`` itself if it is a file, the last checkpoint in it if it is a work directory.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    pointer = path / 'last_checkpoint'
    if pointer.is_file():
        last = Path(pointer.read_text().strip())
        for candidate in (last, path / last.name):             # the second where the directory has been moved
            if candidate.is_file():
                return candidate
    raise FileNotFoundError(f'no checkpoint at {path}')


def read_network(path: str | Path) -> dict[str, torch.Tensor]:
    """The weights of one classifier in a checkpoint: mmpretrain's, this package's (its student), or bare ones.

    Raises:
        InputError: not a checkpoint, or of a training that has not finished.
    """
    file = find_checkpoint(path)
    checkpoint = read_checkpoint(file)
    if Path(path).is_dir():
        done = checkpoint.get('meta', {}).get('epoch')
        info = checkpoint.get('message_hub', {}).get('runtime_info', {})
        planned, steps, all_steps = info.get('max_epochs'), checkpoint.get('meta', {}).get('iter'), info.get('max_iters')
        if None not in (done, planned, steps, all_steps) and done < planned and steps < all_steps:
            raise UnfinishedTraining(f'{path}: training stopped after epoch {done} of {planned}; finish it with --resume, '
                                     f'or name {file}')
    weights = checkpoint.get('state_dict', checkpoint)
    weights = {key.removeprefix('module.'): value for key, value in weights.items()}
    students = {key.removeprefix('student.'): value for key, value in weights.items() if key.startswith('student.')}
    return students or {key: value for key, value in weights.items() if not key.startswith('data_preprocessor.')}


def image_size_in(path: str | Path) -> tuple[int, int] | None:
    """Height and width of a training's images, as :class:`CheckInputHook` leaves them in its checkpoint; None elsewhere."""
    hub = read_checkpoint(find_checkpoint(path)).get('message_hub')
    size = hub.get('runtime_info', {}).get('image_size') if isinstance(hub, dict) else None
    return tuple(size) if isinstance(size, list) and len(size) == 2 else None


def check_weights(weights: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], path: str | Path, name: str) -> None:
    """Raises InputError where ``weights``, of the file ``path``, are not those ``wanted``; the line names the first keys."""
    wrong = [f'no {key}' for key in wanted if key not in weights]
    wrong += [f'unknown {key}' for key in weights if key not in wanted]
    wrong += [f'{key} is {tuple(weights[key].shape)}, not {tuple(wanted[key].shape)}'
              for key in wanted if key in weights and weights[key].shape != wanted[key].shape]
    if wrong:
        more = f' and {len(wrong) - 3} more' if len(wrong) > 3 else ''
        raise InputError(f'{path} is not a checkpoint of this {name}: {"; ".join(wrong[:3])}{more}')


def load_network(network: nn.Module, path: str | Path, name: str) -> None:
    """Fill ``network`` with the weights at ``path``, all of them.

    Raises:
        InputError: the checkpoint is of another architecture; the line names the first keys that do not fit.
    """
    weights = read_network(path)
    check_weights(weights, network.state_dict(), path, name)
    network.load_state_dict(weights)
