"""The processes of a training."""
import os
import resource
import signal

import pytest
import torch
from mmengine.config import Config

from mmcrrcd.engine import launch
from mmcrrcd.engine.launch import prepare_processes
from mmcrrcd.engine.runner import WAIT
from mmcrrcd.errors import InputError


def test_a_process_whose_launcher_was_killed_while_it_imported_ends(monkeypatch):
    ended = []
    monkeypatch.setattr(launch, 'end_with_parent', lambda: None)
    monkeypatch.setattr(launch.os, 'kill', lambda *what: ended.append(what))
    launch.end_together('pytorch')
    assert not ended
    monkeypatch.setattr(launch, 'LAUNCHER', os.getppid() + 1)
    launch.end_together('none')
    assert not ended
    launch.end_together('pytorch')
    assert ended == [(os.getpid(), signal.SIGKILL)]


@pytest.mark.parametrize('timeout', [0, -1, 'long', True])
def test_the_time_out_of_processes_is_a_number_of_seconds(monkeypatch, timeout):
    monkeypatch.setattr(launch, 'end_together', lambda launcher: None)
    cfg = Config(dict(model={}, env_cfg=dict(dist_cfg=dict(backend='gloo', timeout=timeout))))
    with pytest.raises(InputError, match='env_cfg.dist_cfg.timeout is a number of seconds'):
        prepare_processes(cfg, 'pytorch')


@pytest.mark.parametrize('given, seconds', [({}, WAIT), (dict(env_cfg=dict(cudnn_benchmark=True)), WAIT),
                                            (dict(env_cfg=dict(dist_cfg=dict(backend='gloo', timeout=7))), 7)])
def test_processes_do_not_wait_for_ever(monkeypatch, given, seconds):
    """Over gloo, and in what mmengine hands to NCCL."""
    told = {}
    monkeypatch.setattr(launch, 'end_together', lambda launcher: None)
    monkeypatch.setattr(launch, 'get_device', lambda: 'cpu')
    monkeypatch.setattr(launch.torch.distributed, 'init_process_group', lambda backend, **options: told.update(options))
    cfg = Config(dict(model={}) | given)
    prepare_processes(cfg, 'pytorch')
    assert told['timeout'].total_seconds() == seconds == cfg.env_cfg.dist_cfg.timeout
    assert cfg.env_cfg.get('cudnn_benchmark') == given.get('env_cfg', {}).get('cudnn_benchmark')


@pytest.mark.skipif(not hasattr(launch.LIBC, 'mallopt'), reason='is about the allocator of Linux')
def test_large_tensors_take_the_memory_of_those_before_them():
    def page_faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            torch.ones(2**24)                            # 64 MiB
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    launch.keep_memory(False)
    handed_back = page_faults()
    launch.keep_memory()
    assert page_faults() < handed_back / 5
