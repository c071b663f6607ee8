"""What the tools do before a Runner is made."""
import sys
from contextlib import contextmanager

import torch
from mmengine.config import Config
from mmengine.device import get_device

from mmcrrcd.errors import InputError
from mmcrrcd.registry import MODELS


def has_schedules(model: dict) -> bool:
    """Does any weight of an algorithm's config change over the epochs, or has an algorithm or loss stages of its own?

    Of the latter the class says so, by an attribute ``staged``.
    """
    losses = list((model.get('objective') or {}).values())
    weights = [model.get(name) for name in ('alpha', 'beta', 'cls_weight')] + [loss.get('weight') for loss in losses]
    kinds = [part.get('type') for part in (model, *losses)]
    kinds = [MODELS.get(kind) if isinstance(kind, str) else kind for kind in kinds]
    return (any(isinstance(weight, (list, tuple)) for weight in weights)
            or any(getattr(kind, 'staged', False) for kind in kinds))


def prepare_processes(cfg: Config, launcher: str) -> None:
    """Several processes on a machine without a GPU: they meet over gloo. (mmengine's own start wants a GPU for each.)

    A loss whose weight is zero for some epochs leaves its parameters without gradients, for which DDP has to look.
    """
    cfg.launcher = launcher
    cfg.find_unused_parameters = has_schedules(cfg.model)
    if launcher != 'none' and get_device() == 'cpu':
        if launcher != 'pytorch':
            raise InputError(f'--launcher {launcher} needs GPUs; several processes on a CPU are started by torchrun (pytorch)')
        torch.distributed.init_process_group('gloo')
        cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False,
                                     find_unused_parameters=cfg.find_unused_parameters)


@contextmanager
def one_line_errors():
    """Ends the program with the one line of an error that the input caused; bugs keep their traceback.

    Where all went well the processes part in order: gloo's threads abort a program that ends under them.
    """
    try:
        yield
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    except (InputError, FileNotFoundError, FloatingPointError) as error:
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:
        sys.exit('interrupted; a training goes on from its last checkpoint with --resume')
