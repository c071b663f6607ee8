"""What torch.load may build of a file from elsewhere, and what it may not."""
import os
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmcrrcd.checkpoint import read_network
from mmcrrcd.errors import InputError
from mmcrrcd.torch_file import safe_load


class Called:
    """``function(*args)``, as a pickle says it."""

    def __init__(self, function, *args):
        self.what = function, args

    def __reduce__(self):
        return self.what


@pytest.mark.parametrize('attack', [
    Called(os.system, 'touch planted'), Called(eval, "open('planted', 'w')"), Called(bytearray, 1 << 40),
    Called(np.dtype, 'f8'), Called(np.zeros, (3, )), Called(torch.load, 'x'), Called(torch.UntypedStorage, 1 << 40),
    Called(torch.hub.load, 'x', 'y'), Called(__import__, 'antigravity'), Called(subprocess.Popen, ['touch', 'planted']),
    Called(torch.sparse_coo_tensor, [[0]], [1.]), Config(dict(a=1))])
@pytest.mark.parametrize('legacy', [False, True])
def test_only_plain_values_are_built(tmp_path, monkeypatch, attack, legacy):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict={}, attack=attack), 'bad.pth', _use_new_zipfile_serialization=not legacy)
    if isinstance(attack, Called) and attack.what[0] is np.dtype:       # a stand-in keeps nothing of it
        assert not isinstance(safe_load('bad.pth')['attack'], np.dtype)
        return
    with pytest.raises(InputError, match=r'^bad.pth is not a checkpoint that can be loaded safely: [^\n]*$'):
        read_network('bad.pth')
    assert not Path('planted').exists()


def rewritten(file: Path, change, name: str = 'data.pkl', **options) -> None:
    """A checkpoint with one of its records changed, as a zip whose checksums are right."""
    with zipfile.ZipFile(file) as archive:
        records = {record: archive.read(record) for record in archive.namelist()}
    with zipfile.ZipFile(file, 'w', **options) as archive:
        for record, content in records.items():
            archive.writestr(record, change(content) if record.endswith(name) else content)


STATES = ['(K\x03X\x02\x00\x00\x00f8NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t', 'N',
          '(K\x01)X\x01\x00\x00\x00AK\x00K\x00t', ']']


@pytest.mark.parametrize('state', STATES)
@pytest.mark.parametrize('kind', ['numpy\nndarray', 'numpy\ndtype', 'numpy._core.multiarray\n_reconstruct'])
def test_crafted_states_of_numpys_types_crash_nothing(tmp_path, kind, state):
    file = tmp_path / 'bad.pth'
    torch.save(dict(a=1), file)
    content = f'\x80\x02}}X\x01\x00\x00\x00ac{kind}\n)R{state}bs.'.encode('latin1')
    rewritten(file, lambda _: content)
    try:
        found = safe_load(file)['a']
    except InputError:
        return
    assert type(found).__module__ == 'mmcrrcd.torch_file'


def test_tuples_in_tuples_are_refused_before_they_crash_python(tmp_path):
    file = tmp_path / 'bad.pth'
    for nested in (b'N' + b'\x85' * 500_000, b'(' * 300_000 + b'N' + b't' * 300_000,
                   b'N' + b''.join(b'\x85q\x00h\x00\x86' for _ in range(60))):
        torch.save(dict(a=1), file)
        rewritten(file, lambda _, nested=nested: b'\x80\x02}' + nested + b'K\x01s.')
        with pytest.raises(InputError, match='nested too deeply|damaged'):
            safe_load(file)


def test_a_record_is_looked_at_whatever_the_case_of_its_name(tmp_path):
    """PyTorch finds ``data.pkl`` under any case, and its own reader crashes of these tuples."""
    file = tmp_path / 'bad.pth'
    torch.save(dict(a=1), file)
    rewritten(file, lambda _: b'\x80\x02}X\x01\x00\x00\x00a)' + b'\x85' * 300_000 + b's.')
    file.write_bytes(file.read_bytes().replace(b'data.pkl', b'DATA.PKL'))
    with pytest.raises(InputError, match='nested too deeply'):
        safe_load(file)


def twice(n: int) -> list:
    """Lists of which each holds the next twice: n of them are looked through in 2**n steps."""
    return [twice(n - 1)] * 2 if n else []


def in_itself() -> dict:
    found = {}
    found['model'] = found
    return found


@pytest.mark.parametrize('content, why', [
    (dict(meta=dict(settings=twice(60))), 'over and over'), (in_itself(), 'too deeply'),
    (dict(state_dict=dict(a=torch.zeros(1).expand(1 << 20, 1 << 20))), 'a tensor in it is larger than the file')])
@pytest.mark.parametrize('legacy', [False, True])
def test_what_would_take_for_ever_or_all_memory_to_look_through_is_refused(tmp_path, content, why, legacy):
    torch.save(content, tmp_path / 'bad.pth', _use_new_zipfile_serialization=not legacy)
    with pytest.raises(InputError, match=why):
        read_network(tmp_path / 'bad.pth')


def test_long_lists_and_shared_values_are_fine(tmp_path):
    shared = ['a', 'b']
    torch.save(dict(order=list(range(100_000)), names=[shared] * 100, a=torch.zeros(1, 4).expand(3, 4)), tmp_path / 'a.pth')
    assert safe_load(tmp_path / 'a.pth')['names'][99] == shared


def test_a_compressed_checkpoint_is_refused_as_it_can_hold_a_flood(tmp_path):
    torch.save(dict(state_dict=dict(a=torch.zeros(1_000_000))), tmp_path / 'bad.pth')
    rewritten(tmp_path / 'bad.pth', bytes, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match='is compressed'):
        safe_load(tmp_path / 'bad.pth')
