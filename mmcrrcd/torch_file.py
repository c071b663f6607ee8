"""PyTorch's files, written whole, and read so that they cannot run code: each is looked through before any of it is built."""
import pickle
import pickletools
import re
import zipfile
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from mmcrrcd.errors import InputError
from mmcrrcd.files import write_whole
from mmcrrcd.safetensors_file import read_safetensors


class Nothing:
    """Stands in for a type whose values nobody needs, such as those of mmengine's log: made from anything, it keeps nothing."""

    def __init__(self, *_):
        pass

    def __setstate__(self, state):
        pass


class DType:
    """Stands in for NumPy's ``dtype``, whose own loading crashes on damaged ones."""

    def __init__(self, name='', *_):
        self.name = name

    def __setstate__(self, state):
        """Byte order and alignment; numbers are little-endian, as everywhere today."""


def _log_method(*_):
    """Stands in for ``getattr``, by which mmengine's log refers to its own averages."""
    return Nothing()


def _scalar(dtype, data):
    """A number of NumPy as one of Python: metrics like to return them, and mmengine keeps the best."""
    if not (isinstance(dtype, DType) and dtype.name in ('f4', 'f8', 'i4', 'i8', 'u1', 'b1')):
        raise pickle.UnpicklingError('expected a number')
    data = data.encode('latin1') if isinstance(data, str) else data
    return np.frombuffer(data, f'<{dtype.name}')[0].item()


# mmengine keeps its training log in its checkpoints, as objects that torch.load(weights_only=True) does not know, and those
# of NumPy, whose own classes crash when they are built from damaged states: nothing but these stand-ins is ever built.
_STAND_INS = {'mmengine.logging.history_buffer.HistoryBuffer': Nothing, 'builtins.getattr': _log_method,
              'numpy.ndarray': Nothing, 'numpy.dtype': DType}
_STAND_INS |= {f'{module}.multiarray.{name}': stand_in for module in ('numpy.core', 'numpy._core')
               for name, stand_in in (('_reconstruct', Nothing), ('scalar', _scalar))}
_STAND_INS |= {f'numpy.dtypes.{name}DType': DType for name in ('Float32', 'Float64', 'Int32', 'Int64', 'UInt8', 'Bool')}
_PLAIN = {'collections.OrderedDict', 'collections.Counter', 'builtins.set', '_codecs.encode',
          'torch._utils._rebuild_tensor', 'torch._utils._rebuild_tensor_v2', 'torch._utils._rebuild_parameter',
          'torch.Size', 'torch.device', 'torch.serialization._get_layout'}
_STORAGE = re.compile(r'torch\.(?!Typed|Untyped)\w+Storage')
_DEPTH = 100                                             # of tuples in tuples: far more overflow Python's stack
_VALUES, _BYTES = 10 ** 7, 2 ** 28                       # what a file may grow to where lists, or numbers, are held many times
_ADDRESS = re.compile(r'[\w-]+(:\w+)?://')


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
        reason = str(error) if isinstance(error, _Refused) else getattr(error, 'strerror', None) or reason
        raise InputError(f'{path} is not a checkpoint that can be loaded safely: {reason}') from error


def save_whole(value, path: str | Path) -> None:
    """``torch.save`` into a file that is there whole or not at all.

    In one piece: where the disk is full under torch's hands, it says something of positions in place of that.
    """
    content = BytesIO()
    torch.save(value, content)
    write_whole(path, content.getvalue())


def is_whole(path: Path) -> bool:
    """Is the file a checkpoint with nothing missing, as its checksums say?"""
    try:
        _check_file(path)
    except Exception:                                    # damaged files raise many kinds
        return False
    return True
