"""Weights as safetensors files: numbers behind a header in JSON, so that reading them runs nothing."""
import json
import math
from pathlib import Path

import torch
from torch import Tensor

from mmcrrcd.errors import InputError

DTYPES = {'F64': torch.float64, 'F32': torch.float32, 'F16': torch.float16, 'BF16': torch.bfloat16, 'I64': torch.int64,
          'I32': torch.int32, 'I16': torch.int16, 'I8': torch.int8, 'U8': torch.uint8, 'BOOL': torch.bool}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def to_safetensors(weights: dict[str, Tensor]) -> bytes:
    """The content of a file with these tensors, as https://github.com/huggingface/safetensors describes it."""
    header, parts, end = {}, [], 0
    for name, tensor in weights.items():
        parts.append(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        begin, end = end, end + len(parts[-1])
        header[name] = dict(dtype=NAMES[tensor.dtype], shape=list(tensor.shape), data_offsets=[begin, end])
    text = json.dumps(header).encode()
    text += b' ' * (-len(text) % 8)
    return b''.join([len(text).to_bytes(8, 'little'), text, *parts])


def read_safetensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors in a file. Raises InputError where it is damaged, or another kind of file."""
    if not Path(path).is_file():                         # a pipe would be waited for
        raise InputError(f'{path} is no safetensors file: it is no regular file')
    content = Path(path).read_bytes()
    start = 8 + int.from_bytes(content[:8], 'little')
    data, tensors, total = bytearray(content[start:]), {}, 0
    try:
        if start > len(content):
            raise ValueError('the header is longer than the file')
        header = json.loads(content[8:start])
        header.pop('__metadata__', None)
        for name, about in header.items():
            (begin, end), dtype, shape = about['data_offsets'], DTYPES[about['dtype']], about['shape']
            size = math.prod(shape) * dtype.itemsize
            total += size                                # of tensors over one another a small file could make many
            if not all(type(n) is int and n >= 0 for n in (begin, *shape)) or not begin + size == end <= len(data) >= total:
                raise ValueError(name)
            numbers = torch.frombuffer(data, dtype=dtype, count=size // dtype.itemsize, offset=begin) if size else torch.empty(
                0, dtype=dtype)
            tensors[name] = numbers.reshape(shape).clone()
    except (AttributeError, KeyError, RecursionError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f'{path} is damaged, or no safetensors file') from error
    return tensors
