"""What the tools do before a Runner is made."""
import ctypes
import gc
import logging
import os
import signal
import sys
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device

from mmcrrcd.errors import InputError, is_number, printable
from mmcrrcd.files import named_errors
from mmcrrcd.interrupt import CODE, LINE, PARENT as LAUNCHER
from mmcrrcd.models.algorithms import Distiller
from mmcrrcd.models.losses import DistillLoss
from mmcrrcd.registry import MODELS

from .runner import WAIT, Runner
from .settings import check_settings
from .teacher_cache import use_teacher_cache
from .translate import of_worker, translate

LIBC = ctypes.CDLL(None) if sys.platform == 'linux' else None
PARENT = []                                              # the process that forked last, empty until forks are told of it
LONGEST = 600                                            # letters of a line that somebody reads
PICTURES = ('.png', '.pdf', '.svg', '.jpg')


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


def prepare_processes(cfg: Config, launcher: str) -> None:
    """Several processes on a machine without a GPU: they meet over gloo. (mmengine's own start wants a GPU for each.)

    A loss whose weight is zero for some epochs leaves its parameters without gradients, for which DDP has to look.
    """
    end_together(launcher)
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


def check_output(file: str | Path) -> None:
    """Makes the folder for a file that a tool will write when its work is done.

    Raises:
        InputError: it cannot be written there.
    """
    path = Path(file)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InputError(f'{file} cannot be written: {path.parent} is no folder') from None
    except OSError as error:
        raise InputError(f'{file} cannot be written: {error.strerror}') from error
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f'{file} cannot be written: {"it is a folder" if path.is_dir() else "no permission"}')


def picture_and_numbers(file: str) -> tuple[Path, Path]:
    """A picture's file and the JSON file beside it, both checked as above. Raises InputError where it is no picture, too."""
    path = Path(file)
    if path.suffix.lower() not in PICTURES:
        raise InputError(f'{file} ends in none of {", ".join(PICTURES)}')
    both = path, path.with_suffix('.json')
    for each in both:
        check_output(each)
    return both


def part_processes() -> None:
    """Ends the process group, where there is one, and its threads: gloo's now and then abort a program that ends under them.

    They end with the last reference to the group. DDP models hold it, too, and those are parts of reference cycles.
    """
    if torch.distributed.is_initialized():
        gc.collect()
        torch.distributed.destroy_process_group()


def silence() -> None:
    """Nothing more is written to stdout, where it cannot be: at its end Python would try again, and say so."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):                        # no file of the system, as in tests
        pass


def end(line: str, code: int = 1) -> None:
    """Ends the program with one line, also where several processes end with it; of a very long one with its two ends."""
    line = line if len(line) < LONGEST else f'{line[:LONGEST - 120]} ... {line[-100:]}'
    try:
        sys.stdout.flush()
    except OSError:
        silence()
    if file := os.environ.get('MMCRRCD_ERROR_FILE'):     # of tools/dist_train.sh, which says it after all that torchrun says
        try:
            with open(file, 'x') as first:               # of several processes whoever comes first
                first.write(line + '\n')
        except OSError:
            pass
        sys.exit(code)
    if code == 1:
        sys.exit(line)
    print(line, file=sys.stderr)
    sys.exit(code)


def was_interrupted(error: BaseException | None) -> bool:
    """Was it Ctrl-C that ended in this error? mmengine, where it formats a config, catches that with all else."""
    return error is not None and (isinstance(error, KeyboardInterrupt) or was_interrupted(error.__context__))


@contextmanager
def one_line_errors():
    """Ends the program with the one line of an error that the input caused; bugs keep their traceback.

    Where all went well the processes part in order, for which nothing outside may hold a model any more.
    """
    logging.raiseExceptions = False                      # a log on a full disk says nothing; the checkpoint will say it
    try:
        yield
        with named_errors('the output'):
            sys.stdout.flush()                           # a full disk behind a pipe is noticed here, not at the very end
        part_processes()
    except (InputError, FileNotFoundError, FloatingPointError) as error:
        end(f'error: {printable(of_worker(error) or error)}')
    except KeyboardInterrupt:
        end(LINE, CODE)
    except BrokenPipeError:                              # whoever read the output has gone, as ``head`` does
        silence()
        sys.exit(1)
    except Exception as error:
        if was_interrupted(error):
            end(LINE, CODE)
        if (line := translate(error)) is None:           # a bug
            raise
        end(f'error: {printable(line)}')
