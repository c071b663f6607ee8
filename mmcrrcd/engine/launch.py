"""The processes of a training, and its Runner."""
import ctypes
import gc
import os
import signal
import sys
from datetime import timedelta

import torch
from mmengine.config import Config
from mmengine.device import get_device

from mmcrrcd.errors import InputError, is_number
from mmcrrcd.interrupt import PARENT as LAUNCHER
from mmcrrcd.models.algorithms import Distiller
from mmcrrcd.models.losses import DistillLoss
from mmcrrcd.registry import MODELS

from .build_cache import use_teacher_cache
from .runner import WAIT, Runner
from .settings import check_settings

LIBC = ctypes.CDLL(None) if sys.platform == 'linux' else None
PARENT = []                                              # the process that forked last, empty until forks are told of it


def leaves_parameters_out(model: dict) -> bool:
    """May parameters of an algorithm's config go without gradients?

    They may where a weight changes over the epochs, or that of the classification loss is 0; other losses of weight 0 are not
    built. They also may where an algorithm or a loss has stages of its own, which its class says by an attribute ``staged``.
    """
    losses = list((model.get('objective') or {}).values())
    weights = [model.get(name) for name in ('alpha', 'beta', 'cls_weight')] + [loss.get('weight') for loss in losses]
    kinds = [part.get('type') for part in (model, *losses)]
    kinds = [MODELS.get(kind) if isinstance(kind, str) else kind for kind in kinds]
    return (any(isinstance(weight, (list, tuple)) for weight in weights) or model.get('cls_weight') == 0
            or any(isinstance(kind, type) and issubclass(kind, (Distiller, DistillLoss)) and kind.staged for kind in kinds))


def end_with_parent() -> None:
    """Has Linux end this process when the one that started it ends, however it did; elsewhere nothing is done."""
    if sys.platform == 'linux':
        LIBC.prctl(1, signal.SIGKILL)                    # PR_SET_PDEATHSIG


def remember_parent() -> None:
    """Before a fork: who the parent is going to be."""
    PARENT[:] = [os.getpid()]


def end_with_forking_parent() -> None:
    """In a fork: ends with its parent, also with one that has ended since."""
    end_with_parent()
    if os.getppid() != PARENT[0]:
        os.kill(os.getpid(), signal.SIGKILL)


def end_together(launcher: str) -> None:
    """From now on, loader workers end with this process and this process with its launcher: no kill leaves any behind."""
    if launcher != 'none':
        end_with_parent()
        if os.getppid() != LAUNCHER:                     # it was killed while this process imported
            os.kill(os.getpid(), signal.SIGKILL)
    if sys.platform == 'linux' and not PARENT:
        remember_parent()                                # once is enough: what is registered stays
        os.register_at_fork(before=remember_parent, after_in_child=end_with_forking_parent)


def keep_memory(keep: bool = True) -> None:
    """Has Linux' allocator keep the memory of tensors that are gone for the next ones.

    By itself it hands that of large ones back. Then each begins with a page fault for every four kilobytes (docs/speed.md).
    """
    if hasattr(LIBC, 'mallopt'):                         # glibc
        LIBC.mallopt(-4, 0 if keep else 2**16)           # M_MMAP_MAX
        LIBC.mallopt(-1, -1 if keep else 2**17)          # M_TRIM_THRESHOLD


def prepare_processes(cfg: Config, launcher: str) -> None:
    """Several processes on a machine without a GPU: they meet over gloo. (mmengine's own start wants a GPU for each.)

    A loss whose weight is zero for some epochs leaves its parameters without gradients, for which DDP has to look.
    """
    end_together(launcher)
    keep_memory()
    cfg.launcher = launcher
    if launcher != 'none':
        environment = dict(cfg.get('env_cfg') or {})
        settings = dict(backend='nccl', timeout=WAIT) | dict(environment.get('dist_cfg') or {})
        cfg.env_cfg, wait = environment | dict(dist_cfg=settings), settings['timeout']
        if not is_number(wait) or wait <= 0:
            raise InputError(f'env_cfg.dist_cfg.timeout is a number of seconds, got {wait!r}')
    cfg.find_unused_parameters = leaves_parameters_out(cfg.model)
    if launcher != 'none' and get_device() == 'cpu':
        if launcher != 'pytorch':
            raise InputError(f'--launcher {launcher} needs GPUs; several processes on a CPU are started by torchrun (pytorch)')
        if cfg.get('sync_bn'):
            raise InputError(f"sync_bn={cfg.sync_bn!r} needs GPUs: torch's SyncBatchNorm does not run on a CPU")
        torch.distributed.init_process_group('gloo', timeout=timedelta(seconds=wait))
        cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False,
                                     find_unused_parameters=cfg.find_unused_parameters)


def build_runner(cfg: Config) -> Runner:
    """``Runner.from_cfg`` of a training that reads its teacher's answers from a cache where its model has a ``teacher_cache``;
    its settings are looked at before.

    Raises:
        InputError: a setting is one that nothing takes, see :func:`check_settings`; the teacher's answers cannot be had.
    """
    check_settings(cfg)
    use_teacher_cache(cfg)
    return Runner.from_cfg(cfg)


def part_processes() -> None:
    """Ends the process group, where there is one, and its threads: gloo's now and then abort a program that ends under them.

    They end with the last reference to the group. DDP models hold it, too, and those are parts of reference cycles.
    """
    if torch.distributed.is_initialized():
        gc.collect()
        torch.distributed.destroy_process_group()
