"""One training per work directory, and no training over another one."""
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from mmengine.dist import is_main_process
from mmengine.hooks import Hook

from mmcrrcd.checkpoint import step_of
from mmcrrcd.errors import InputError, printable
from mmcrrcd.files import write_whole


class BeingTrained(InputError):
    """Another process has the training."""


def is_first_process(launcher: str) -> bool:
    """Is this the first of the processes that ``launcher`` started? Known before they have met."""
    names = dict(pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_RANK')
    return launcher == 'none' or int(os.environ.get(names[launcher], 0)) == 0


@contextmanager
def one_training(folder: str | Path, launcher: str = 'none', anew: bool = False) -> Iterator[None]:
    """In the block, no other training runs in ``folder``; the first process holds it for all.

    The lock is the system's, so it ends with the process, however that ends.

    Args:
        anew: the training may not go over another one, see :func:`refuse_another`.

    Raises:
        BeingTrained: another one does; the line names its process.
    """
    if not is_first_process(launcher):
        yield
        return
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock, holder = folder / '.training.lock', folder / '.training.by'
        if lock.is_symlink():
            lock.unlink()
        held = FileLock(lock).acquire(blocking=False)
    except Timeout:
        by = printable(holder.read_text(errors='replace')[:200]) if holder.is_file() else 'another process'
        raise BeingTrained(f'{folder} is being trained by {by}; name another folder by --work-dir, or wait') from None
    except OSError as error:
        raise InputError(f'{folder} cannot be a work directory: {error.strerror}') from error
    with held:
        write_whole(holder, f'process {os.getpid()} on {platform.node()}')
        try:
            if anew:
                refuse_another(folder)
            yield
        except KeyboardInterrupt:                        # leaves the mark, as a kill does
            raise
        except BaseException:
            holder.unlink(missing_ok=True)
            raise
        holder.unlink(missing_ok=True)


def was_killed(folder: str | Path) -> bool:
    """Did a kill or Ctrl-C end the last training in ``folder``? Even after the last checkpoint its test, and so the best
    checkpoint, may be missing.
    """
    return Path(folder, '.training.by').is_file()


def trainings_files(folder: str | Path) -> list[Path]:
    """The checkpoints in a work directory, the last one in training first, and the pointer to the last."""
    found = [each for each in Path(folder).glob('*.pth') if step_of(each) is not None or each.name.startswith('best_')]
    found.sort(key=lambda each: (step_of(each) is None, -(step_of(each) or 0)))
    pointer = Path(folder, 'last_checkpoint')
    return [*found, *([pointer] if pointer.exists() else [])]


def refuse_another(folder: str | Path) -> None:
    """Raises InputError where ``folder`` has a training already: a new one would write over it."""
    if found := trainings_files(folder):
        raise InputError(f'{folder} has a training already ({found[0].name}): go on with --resume, name another folder by '
                         '--work-dir, or start anew with --overwrite, which removes its checkpoints')


class OverwriteHook(Hook):
    """Removes the checkpoints of an earlier training from the work directory when all is ready to start."""

    priority = 'LOWEST'

    def before_train(self, runner) -> None:
        """Removes the files of an earlier training."""
        if is_main_process():
            for each in trainings_files(runner.work_dir):
                each.unlink()
