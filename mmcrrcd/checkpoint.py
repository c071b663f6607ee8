"""Networks from checkpoint files of any origin, loaded so that they cannot run code."""
import logging
import os
import pickle
import pickletools
import re
import zipfile
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mmcrrcd.errors import InputError, printable
from mmcrrcd.safetensors_file import read_safetensors


class _Nothing:
    """Stands in for a type whose values nobody needs, such as those of mmengine's log: made from anything, it keeps nothing."""

    def __init__(self, *_):
        pass

    def __setstate__(self, state):
        pass


class _DType:
    """Stands in for NumPy's ``dtype``, whose own loading crashes on damaged ones."""

    def __init__(self, name='', *_):
        self.name = name

    def __setstate__(self, state):
        """Byte order and alignment; numbers are little-endian, as everywhere today."""


def _log_method(*_):
    """Stands in for ``getattr``, by which mmengine's log refers to its own averages."""
    return _Nothing()


def _scalar(dtype, data):
    """A number of NumPy as one of Python: metrics like to return them, and mmengine keeps the best."""
    if not (isinstance(dtype, _DType) and dtype.name in ('f4', 'f8', 'i4', 'i8', 'u1', 'b1')):
        raise pickle.UnpicklingError('expected a number')
    data = data.encode('latin1') if isinstance(data, str) else data
    return np.frombuffer(data, f'<{dtype.name}')[0].item()


# mmengine keeps its training log in its checkpoints, as objects that torch.load(weights_only=True) does not know, and those
# of NumPy, whose own classes crash when they are built from damaged states: nothing but these stand-ins is ever built.
_STAND_INS = {'mmengine.logging.history_buffer.HistoryBuffer': _Nothing, 'builtins.getattr': _log_method,
              'numpy.ndarray': _Nothing, 'numpy.dtype': _DType}
_STAND_INS |= {f'{module}.multiarray.{name}': stand_in for module in ('numpy.core', 'numpy._core')
               for name, stand_in in (('_reconstruct', _Nothing), ('scalar', _scalar))}
_STAND_INS |= {f'numpy.dtypes.{name}DType': _DType for name in ('Float32', 'Float64', 'Int32', 'Int64', 'UInt8', 'Bool')}
_PLAIN = {'collections.OrderedDict', 'collections.Counter', 'builtins.set', '_codecs.encode',
          'torch._utils._rebuild_tensor', 'torch._utils._rebuild_tensor_v2', 'torch._utils._rebuild_parameter',
          'torch.Size', 'torch.device', 'torch.serialization._get_layout'}
_STORAGE = re.compile(r'torch\.(?!Typed|Untyped)\w+Storage')
_DEPTH = 100                                             # of tuples in tuples: far more overflow Python's stack
_VALUES, _BYTES = 10 ** 7, 2 ** 28                       # what a file may grow to where lists, or numbers, are held many times
_ADDRESS = re.compile(r'[\w-]+(:\w+)?://')


class UnfinishedTraining(InputError):
    """The last checkpoint of a work directory is not the end of its training."""


class _Refused(Exception):
    """Why a file is not loaded."""


def _check_name(name: str) -> None:
    """Raises _Refused for the name of a type or function that no checkpoint needs."""
    module, _, rest = name.rpartition('.')
    name = f'builtins.{rest}' if module == '__builtin__' else name
    is_dtype = module == 'torch' and isinstance(getattr(torch, rest, None), torch.dtype)
    if name not in _STAND_INS and name not in _PLAIN and not _STORAGE.fullmatch(name) and not is_dtype:
        raise _Refused(f'it has more in it than numbers, {name}')


def _check_pickle(file: BinaryIO) -> None:
    """Reads one pickle without building anything.

    Raises _Refused where it names what no checkpoint needs, or where tuples are nested so deeply that Python crashes.
    """
    stack, memo, mark = [], {}, object()                 # how deeply tuples are nested in what would be on the stack
    for opcode, argument, _ in pickletools.genops(file):
        name, popped = opcode.name, []
        if name == 'GLOBAL':
            _check_name(argument.replace(' ', '.', 1))
        elif name in ('STACK_GLOBAL', 'INST', 'OBJ', 'EXT1', 'EXT2', 'EXT4', 'NEXT_BUFFER'):
            raise _Refused(f'it has more in it than numbers, by {name}')
        elif name in ('BINPUT', 'LONG_BINPUT', 'PUT', 'MEMOIZE'):
            memo[len(memo) if argument is None else argument] = stack[-1]
            continue
        elif name in ('BINGET', 'LONG_BINGET', 'GET', 'DUP'):
            stack.append(stack[-1] if name == 'DUP' else memo[argument])
            continue
        elif name == 'MARK':
            stack.append(mark)
            continue
        kinds = [kind.name for kind in opcode.stack_before]
        if 'mark' in kinds or name == 'POP_MARK':
            while (top := stack.pop()) is not mark:
                popped.append(top)
            kinds = kinds[:kinds.index('mark')]
        popped += [stack.pop() for _ in kinds]
        depth = 1 + max((each for each in popped if each is not mark), default=0) if name.startswith('TUPLE') else 0
        if depth > _DEPTH:
            raise _Refused('it is nested too deeply')
        stack += [depth] * len(opcode.stack_after)


def _check_file(path: Path) -> None:
    """Raises _Refused where the file is no whole checkpoint, by its checksums where it has them, or names foreign types."""
    if not path.is_file():
        raise _Refused('it is no regular file')
    if not path.stat().st_size:
        raise _Refused('it is empty')
    with open(path, 'rb') as file:
        zipped = file.read(4) == b'PK\x03\x04'          # as PyTorch tells them apart
    if zipped:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.compress_type != zipfile.ZIP_STORED:            # torch's are not; a small file can hold a huge one
                    raise _Refused(f'{info.filename} in it is compressed')
            if damaged := archive.testzip():
                raise _Refused(f'it is damaged: the checksum of {damaged} is wrong')
            for name in archive.namelist():
                if name.lower().endswith('.pkl'):        # PyTorch finds them in any case
                    _check_pickle(BytesIO(archive.read(name)))
    else:                                                # PyTorch's older form: number, version, machine, content, keys
        with open(path, 'rb') as file:
            for _ in range(5):
                _check_pickle(file)


def _check_values(value, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many values there are in what was loaded, and how deep they lie; ``known`` are the containers seen so far.

    Raises _Refused where it would take for ever, or all memory, to look through them: lists in one another without end, lists
    of which each holds the next twice, one number shown as a large tensor.
    """
    if isinstance(value, Tensor) and value.numel() * value.element_size() - value.untyped_storage().nbytes() > _BYTES:
        raise _Refused('a tensor in it is larger than the file')
    if not isinstance(value, (dict, list, tuple, set)):
        return 1, 0
    if id(value) not in known:
        known[id(value)] = 1, _DEPTH                         # while it is looked into: what holds itself is too deep
        inner = [_check_values(each, known) for each in (value.values() if isinstance(value, dict) else value)]
        number, depth = 1 + sum(number for number, _ in inner), 1 + max((depth for _, depth in inner), default=0)
        if depth > _DEPTH or number > _VALUES:
            raise _Refused('it is nested too deeply' if depth > _DEPTH else 'it holds the same values over and over')
        known[id(value)] = number, depth
    return known[id(value)]


def safe_load(path: str | Path, device: str = 'cpu') -> dict:
    """``torch.load`` that only ever builds tensors and plain values, from whole local files; safetensors files, too.

    Raises:
        InputError: it is none, is damaged, or has more in it; one line.
    """
    if not isinstance(path, (str, Path)):
        raise InputError(f'a checkpoint is the path of a file, got {path!r}')
    if _ADDRESS.match(str(path)):
        raise InputError(f'{path} is an address: download the file, and give its path')
    if not Path(path).exists():
        raise FileNotFoundError(f'there is no checkpoint {path}')
    if Path(path).suffix == '.safetensors':
        return read_safetensors(path)
    try:
        _check_file(Path(path))
        with torch.serialization.safe_globals([(stand_in, name) for name, stand_in in _STAND_INS.items()]):
            content = torch.load(path, map_location=device, weights_only=True)
        _check_values(content, {})
        return content
    except Exception as error:                           # torch's own words end in how to load it unsafely
        found = re.search(r'Unsupported (?:global: GLOBAL|class) ([\w.]+)', str(error))
        reason = f'it has more in it than numbers, {found[1]}' if found else 'it is damaged, or something else'
        reason = str(error) if isinstance(error, _Refused) else reason
        raise InputError(f'{path} is not a checkpoint that can be loaded safely: {reason}') from error


def read_checkpoint(path: str | Path, device: str = 'cpu') -> dict:
    """What a checkpoint holds; the only way by which one enters this package.

    mmengine would run ``meta['config']`` as Python, and removes the files that a checkpoint calls its best: neither is handed
    on. The log's history is left out, which no training needs.

    Raises:
        InputError: it is none, is damaged, or has more in it than tensors and plain values.
    """
    checkpoint = safe_load(path, device)
    if not isinstance(checkpoint, dict):
        raise InputError(f'{path} is not a checkpoint: it holds a {type(checkpoint).__name__}, not a dict of weights')
    if not isinstance(weights := checkpoint.get('state_dict', {}), dict):
        raise InputError(f'{path} is not a checkpoint: its state_dict is a {type(weights).__name__}')
    if isinstance(checkpoint.get('meta'), dict):
        checkpoint['meta'].pop('config', None)
    hub = checkpoint.get('message_hub')
    if isinstance(hub, dict) and isinstance(hub.get('runtime_info'), dict):
        hub['log_scalars'] = {}
        hub['runtime_info'] = {key: value for key, value in hub['runtime_info'].items() if not isinstance(value, _Nothing)}
        known = hub.get('resumed_keys')
        known = known if isinstance(known, dict) else {}
        hub['resumed_keys'] = {key: True for key, value in known.items() if value and key in hub['runtime_info']}
    elif hub is not None:                                # of another form than today's: of no use
        del checkpoint['message_hub']
    return checkpoint


def is_whole(path: Path) -> bool:
    """Is the file a checkpoint with nothing missing, as its checksums say?"""
    try:
        _check_file(path)
    except Exception:                                    # damaged files raise many kinds
        return False
    return True


def step_of(path: Path) -> int | None:
    """The epoch or iteration in the name of a checkpoint that can be resumed from; None for others, such as the best."""
    found = re.search(r'(\d+)\.pth$', path.name)
    return int(found[1]) if found and not path.name.startswith('best_') else None


def find_checkpoint(path: str | Path) -> Path:
    """``path`` itself if it is a file, the last whole checkpoint in it if it is a work directory.

    That is the one that ``last_checkpoint`` names, by its name in this folder first, as the folder may have been renamed or
    copied. Where that file is missing, empty, or names nothing whole, or where a checkpoint was written after it, the one
    with the largest number is taken.

    Raises:
        FileNotFoundError: there is none.
        InputError: there are some, but none is whole.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f'no checkpoint at {path}')
    named = None
    if (pointer := path / 'last_checkpoint').is_file():
        text = pointer.read_text(errors='replace').strip()
        last = Path(text) if text and text.isprintable() else None
        named = next((each for each in (path / last.name, last) if os.path.isfile(each)), None) if last else None
    others = [each for each in path.glob('*.pth') if step_of(each) is not None and each.is_file() and each != named]
    if named is not None and step_of(named) is not None:
        written = named.stat().st_mtime_ns
        newer = [each for each in others if step_of(each) > step_of(named) and each.stat().st_mtime_ns >= written]
    else:
        newer = [] if named else others
    by_step = sorted(others, key=step_of, reverse=True)
    candidates = [*sorted(newer, key=step_of, reverse=True), *([named] if named else []), *by_step]
    for each in dict.fromkeys(candidates):
        if is_whole(each):
            return each
        print_log(f'{printable(each)} is damaged, so an earlier checkpoint is taken', 'current', logging.WARNING)
    if candidates:
        raise InputError(f'none of the {len(set(candidates))} checkpoints in {path} is whole: {candidates[0].name} is damaged')
    raise FileNotFoundError(f'no checkpoint at {path}')


def check_finite(weights: dict[str, Tensor], untrained: dict[str, Tensor], path: str | Path) -> None:
    """Raises InputError where a weight or buffer of the file ``path`` is not finite, and that of an untrained network is."""
    if name := first_not_finite(weights, {key for key, value in untrained.items() if not value.isfinite().all()}):
        raise InputError(f'{path} is of no use: {name} in it is not finite')


def first_not_finite(weights: dict[str, Tensor], meant: set[str] = frozenset()) -> str | None:
    """The name of the first tensor with NaN or infinity in it, of those not in ``meant``; None where there is none.

    One wait for the device.
    """
    names = [key for key, value in weights.items() if key not in meant and value.numel()
             and (value.is_floating_point() or value.is_complex())]
    finite = torch.stack([weights[key].isfinite().all().cpu() for key in names]).tolist() if names else []
    return None if all(finite) else names[finite.index(False)]


WRAPPINGS = ('state_dict', 'model', 'net', 'network', 'model_state_dict', 'model_state', 'weights', 'student', 'module',
             'state_dict_ema', 'model_ema', 'ema_state_dict', 'ema', 'ema_model')        # averaged ones in need
PREFIXES = ('module.', '_orig_mod.')                     # of parallel, averaged and compiled models
COUNTERS = {'steps', 'n_averaged'}                       # of averaged models


def weights_in(checkpoint: dict, path: str | Path) -> dict[str, Tensor]:
    """The weights of one network in what a checkpoint of any origin holds, under the names that the network itself gives them.

    They may lie under ``model``, ``net``, ``state_dict`` and the like, one in the other, and their names may begin with
    ``module.`` or ``_orig_mod.``.

    Raises:
        InputError: there are none where they are looked for; the line says what there is.
    """
    def find(found) -> dict | None:
        if not isinstance(found, dict):
            return None
        inner = next((each for each in map(find, (found.get(key) for key in WRAPPINGS)) if each), None)
        return inner or {str(key): value for key, value in found.items() if isinstance(value, Tensor)}

    weights = find(checkpoint)
    if not weights:
        held = printable(', '.join(map(str, list(checkpoint)[:8]))) or 'nothing'
        raise InputError(f'{path} has no weights of a network: it holds {held}, and they are looked for at its top and under '
                         f'{", ".join(WRAPPINGS)}')
    for _ in range(len(PREFIXES) + 1):                   # one may be in the other
        for prefix in PREFIXES:
            averaged = COUNTERS & weights.keys() and any(key.startswith(prefix) for key in weights)
            weights = {key.removeprefix(prefix): value for key, value in weights.items()
                       if not (averaged and key in COUNTERS)}
    return weights


def read_network(path: str | Path) -> dict[str, Tensor]:
    """The weights of one classifier in a checkpoint: mmpretrain's, this package's (its student), or those of others, see
    :func:`weights_in`.

    Raises:
        InputError: not a checkpoint, or of a training that has not finished.
    """
    file = find_checkpoint(path)
    checkpoint = read_checkpoint(file)
    if Path(path).is_dir() and (left := unfinished(checkpoint)):
        raise UnfinishedTraining(f'{path}: training stopped after {left}; finish it with --resume, or name {file}')
    weights = weights_in(checkpoint, file)
    students = {key.removeprefix('student.'): value for key, value in weights.items() if key.startswith('student.')}
    return students or {key: value for key, value in weights.items() if not key.startswith('data_preprocessor.')}


def fitted(weights: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """``weights`` under the names in ``wanted`` where all have one prefix more, ``model.`` of Lightning, say, or one less. With
    the counters of batch norms that older files lack, and eval mode does not need.
    """
    def shared(names) -> str:
        first = {name.partition('.')[0] for name in names}
        return f'{first.pop()}.' if len(first) == 1 else ''

    if weights and not weights.keys() & wanted.keys():
        more, less = shared(weights), shared(wanted)
        for names in ({key: key.removeprefix(more) for key in weights}, {key: less + key for key in weights}):
            if set(names.values()) & wanted.keys():
                weights = {names[key]: value for key, value in weights.items()}
                break
    counters = {key: value for key, value in wanted.items() if key.endswith('.num_batches_tracked')}
    return weights if counters.keys() & weights.keys() else counters | weights


def names_in_student(weights: dict[str, Tensor], student: dict[str, Tensor], prefix: str = '') -> dict[str, str]:
    """New names ``student.*`` for the weights of a checkpoint that is of the student alone; {} for one of a distiller."""
    if any(key.startswith(f'{prefix}student.') for key in weights):
        return {}
    return {prefix + key: f'{prefix}student.{key}' for key in student if prefix + key in weights}


def image_size_in(path: str | Path) -> tuple[int, int] | None:
    """Height and width of a training's images, as :class:`CheckInputHook` leaves them in its checkpoint; None elsewhere."""
    hub = read_checkpoint(find_checkpoint(path)).get('message_hub')
    size = hub.get('runtime_info', {}).get('image_size') if isinstance(hub, dict) else None
    return tuple(size) if isinstance(size, list) and len(size) == 2 else None


def unfinished(checkpoint: dict) -> str | None:
    """How far the training of a checkpoint had come where it was not at its end, in words; None where it was, or is unknown.

    The end of a training that ``EarlyStoppingHook`` stopped is where it stopped.
    """
    meta, hub = (checkpoint.get(key) if isinstance(checkpoint.get(key), dict) else {} for key in ('meta', 'message_hub'))
    info = hub.get('runtime_info', {})
    done, planned, steps, all_steps = meta.get('epoch'), info.get('max_epochs'), meta.get('iter'), info.get('max_iters')
    known = all(isinstance(number, int) for number in (done, planned, steps, all_steps))
    at_its_end = not known or done >= planned or steps >= all_steps or bool(info.get('stopped_early'))
    return None if at_its_end else f'epoch {done} of {planned}'


def check_weights(weights: dict[str, Tensor], wanted: dict[str, Tensor], path: str | Path, name: str) -> None:
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
        InputError: the checkpoint is of another architecture, and the line names the first keys that do not fit; or a weight is
            not finite.
    """
    untrained = network.state_dict()
    weights = fitted(read_network(path), untrained)
    check_weights(weights, untrained, path, name)
    check_finite(weights, untrained, path)
    network.load_state_dict(weights)
