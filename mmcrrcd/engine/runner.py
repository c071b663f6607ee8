"""mmengine's Runner, with the one way by which checkpoints enter this package."""
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import mmengine.runner
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import CheckpointLoader

from mmcrrcd.checkpoint import find_checkpoint, read_checkpoint
from mmcrrcd.errors import InputError, printable
from mmcrrcd.files import write_whole
from mmcrrcd.registry import HOOKS

from .hooks.atomic_checkpoint import AtomicCheckpointHook
from .hooks.resume import ResumeHook


@contextmanager
def safe_loading() -> Iterator[None]:
    """In the block, mmengine's loader reads through :func:`read_checkpoint`: local files, no code.

    So do ``Runner.load_checkpoint``, ``Runner.resume``, and ``init_cfg=dict(type='Pretrained')`` of any part of a model.
    """
    before = CheckpointLoader.__dict__['load_checkpoint']

    def load(cls, filename, map_location=None, logger='current') -> dict:
        return read_checkpoint(filename, map_location if isinstance(map_location, str) else 'cpu')

    CheckpointLoader.load_checkpoint = classmethod(load)
    try:
        yield
    finally:
        CheckpointLoader.load_checkpoint = before


class FormattedOnce(Config):
    """A config that stays as it is. mmengine formats its text for each checkpoint, which takes longer than to write one."""

    @cached_property
    def pretty_text(self) -> str:
        """The config as text, formatted once."""
        return super().pretty_text


class Runner(mmengine.runner.Runner):
    """mmengine's Runner, that a file from elsewhere cannot make run code, and that loses nothing.

    - Every checkpoint, that of ``resume``, ``load_from`` and ``Pretrained``, is read by :func:`read_checkpoint`.
    - ``resume`` goes on from the newest whole checkpoint, see :func:`find_checkpoint`; :class:`ResumeHook` says what differs.
    - mmengine's ``CheckpointHook`` is built as :class:`AtomicCheckpointHook`.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        object.__setattr__(self.cfg, '__class__', FormattedOnce)         # mmengine's own would make it a setting
        self.register_hook(ResumeHook(), 'LOWEST')

    def register_default_hooks(self, hooks: dict | None = None) -> None:
        """mmengine's, with atomic checkpoints."""
        hooks = dict(hooks or {})
        checkpoint = hooks.get('checkpoint', dict(type='CheckpointHook'))
        if isinstance(checkpoint, dict) and not checkpoint.keys() & {'backend_args', 'file_client_args'}:
            kind = checkpoint['type']
            if (HOOKS.get(kind) if isinstance(kind, str) else kind) is CheckpointHook:
                hooks['checkpoint'] = dict(checkpoint, type=AtomicCheckpointHook)
        super().register_default_hooks(hooks)

    def dump_config(self) -> None:
        """mmengine's, but whole or not at all, and over a link rather than through it."""
        name = Path(self.cfg.filename).name if self.cfg.filename is not None else f'{self.timestamp}.py'
        if is_main_process():
            write_whole(Path(self.work_dir, name), self.cfg.pretty_text)

    def _init_model_weights(self) -> None:
        with safe_loading():
            super()._init_model_weights()

    def load_checkpoint(self, filename: str, *args, **kwargs) -> dict:
        """mmengine's, of a local file, loaded so that it cannot run code. Raises InputError where it is none."""
        with safe_loading():
            return super().load_checkpoint(filename, *args, **kwargs)

    def resume(self, filename: str, *args, **kwargs) -> None:
        """mmengine's. Raises InputError where the file is no checkpoint that this training can go on from; one line."""
        try:
            super().resume(filename, *args, **kwargs)
        except InputError:
            raise
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:   # of a crafted file
            reason = f'{type(error).__name__}: {error}'.splitlines()[0]
            raise InputError(f'{printable(filename)} cannot be resumed from ({reason})') from error

    def load_or_resume(self) -> None:
        """mmengine's, but the last checkpoint in the work directory is found as :func:`find_checkpoint` says."""
        if self._has_loaded or not self._resume or self._load_from is not None:
            return super().load_or_resume()
        try:
            found = find_checkpoint(self.work_dir)
        except FileNotFoundError:
            self.logger.warning(f'there is no checkpoint in {printable(self.work_dir)}: the training starts anew')
            return None
        self.logger.info(f'going on from {printable(found)}')
        self.resume(str(found))
        self._has_loaded = True
        pointer = Path(self.work_dir, 'last_checkpoint')
        if is_main_process() and not (pointer.is_file() and pointer.read_text(errors='replace') == str(found)):
            write_whole(pointer, str(found))             # a kill came before it was written, or the folder was renamed
