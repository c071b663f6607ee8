"""What the tools do before a Runner is made."""
import sys
from contextlib import contextmanager

import torch
from mmengine.config import Config
from mmengine.device import get_device

from mmcrrcd.errors import InputError


def prepare_processes(cfg: Config, launcher: str) -> None:
    """Several processes on a machine without a GPU: they meet over gloo. (mmengine's own start wants a GPU for each.)"""
    cfg.launcher = launcher
    if launcher != 'none' and get_device() == 'cpu':
        if launcher != 'pytorch':
            raise InputError(f'--launcher {launcher} needs GPUs; several processes on a CPU are started by torchrun (pytorch)')
        torch.distributed.init_process_group('gloo')
        cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)


@contextmanager
def one_line_errors():
    """Ends the program with the one line of an error that the input caused; bugs keep their traceback."""
    try:
        yield
    except (InputError, FileNotFoundError, FloatingPointError) as error:
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:
        sys.exit('interrupted; --resume goes on from the last checkpoint')
