"""Checkpoints that survive a kill while they are being written."""
import logging
import os
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook

from mmcrrcd.checkpoint import step_of
from mmcrrcd.errors import explained, first_line
from mmcrrcd.files import clear_parts, write_whole
from mmcrrcd.registry import HOOKS


@register_backend('mmcrrcd_atomic', force=True)
class AtomicBackend(LocalBackend):
    """Local files that appear whole or not at all; what is removed stays until ``clear``."""

    def __init__(self):
        self.outdated = []

    def put(self, obj: bytes, filepath: str) -> None:
        """Writes a file that is there whole or not at all."""
        write_whole(filepath, bytes(obj))

    def remove(self, filepath: str) -> None:
        """Has ``clear`` remove it."""
        self.outdated.append(filepath)

    def clear(self) -> None:
        """Removes what ``remove`` was called for."""
        for path in map(Path, self.outdated):
            if path.is_symlink() or not path.is_dir():
                path.unlink(missing_ok=True)
        self.outdated.clear()


def _not_of_file_clients(record: logging.LogRecord) -> bool:
    """Leaves out two lines by which mmengine 0.10.7 warns of what it does itself on saving: no setting makes them go."""
    return not record.getMessage().startswith(('"FileClient" will be deprecated', '"HardDiskBackend" is the alias'))


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's hook with the same arguments, for local disks, that always leaves a checkpoint to resume from.

    mmengine 0.10.7 removes the old checkpoint before it writes the new one. It overwrites in place when the same epoch is saved
    again with a new best score. It writes ``last_checkpoint`` in place. A kill in between leaves that pointing at
    nothing, or at half a file. It also removes the files that a checkpoint calls its best and its last: here only files of
    such names in its own folder.

    A checkpoint names those that it takes the place of (``outdated_ckpts``): where a kill has kept them they go on resuming.
    """

    def __init__(self, *args, **kwargs):
        with explained('the checkpoint hook', (AssertionError, KeyError, ValueError), first_line):      # mmengine's own checks
            super().__init__(*args, backend_args=dict(backend='mmcrrcd_atomic'), **kwargs)

    def before_train(self, runner) -> None:
        """Takes over what a resumed training knows of its checkpoints."""
        info = runner.message_hub.runtime_info
        kept = info.get('keep_ckpt_ids', [])
        if not isinstance(kept, list) or not all(type(step) is int for step in kept):
            info.pop('keep_ckpt_ids')
        info.pop('stopped_early', None)                  # of the checkpoint that this training goes on from
        runner.logger.addFilter(_not_of_file_clients)
        super().before_train(runner)
        if isinstance(last := info.get('last_ckpt'), str):               # so that a better score goes into it on resuming, too
            self.last_ckpt = os.path.join(self.out_dir, os.path.basename(last))
        if self.save_best is not None:
            self.best_ckpt_path = self._own(getattr(self, 'best_ckpt_path', None))
            self.best_ckpt_path_dict = {key: self._own(path)
                                        for key, path in getattr(self, 'best_ckpt_path_dict', {}).items()}
        outdated = str(info.pop('outdated_ckpts', '')).split('/') if runner._load_from is None else []    # of this folder
        if is_main_process():
            for path in (Path(self.out_dir, name) for name in outdated if name.endswith('.pth')):
                if path.name.startswith('best_') or step_of(path) is not None:
                    self.file_backend.remove(path)
            self.file_backend.clear()
            clear_parts(self.out_dir, '.pth')
            clear_parts(runner.work_dir, 'last_checkpoint')

    def after_train(self, runner) -> None:
        """Writes the last checkpoint again where a hook stopped the training early, with a mark that this is its end."""
        super().after_train(runner)
        if getattr(runner.train_loop, 'stop_training', False):
            runner.message_hub.update_info('stopped_early', True)
            step = runner.epoch if self.by_epoch else runner.iter
            self._save_checkpoint_with_step(runner, step, dict(epoch=runner.epoch, iter=runner.iter))

    def _own(self, path) -> str | None:
        """The best checkpoint's path in this folder, which may have another name now; None for what is none of this hook's."""
        name = os.path.basename(path) if isinstance(path, str) else ''
        return os.path.join(self.out_dir, name) if name.startswith('best_') and name.endswith('.pth') else None

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        if self.max_keep_ckpts > 0 and (not self.keep_ckpt_ids or self.keep_ckpt_ids[-1] != step):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                self.file_backend.remove(os.path.join(self.out_dir, self.filename_tmpl.format(self.keep_ckpt_ids.popleft())))
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = os.path.join(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        outdated = (os.path.basename(path) for path in self.file_backend.outdated)
        runner.message_hub.update_info('outdated_ckpts', '/'.join(outdated))
        runner.save_checkpoint(self.out_dir, name, save_optimizer=self.save_optimizer,
                               save_param_scheduler=self.save_param_scheduler, meta=meta, by_epoch=self.by_epoch,
                               backend_args=self.backend_args, **self.args)
        if is_main_process():
            write_whole(Path(runner.work_dir, 'last_checkpoint'), self.last_ckpt)
            self.file_backend.clear()

    def _save_best_checkpoint(self, runner, metrics) -> None:
        super()._save_best_checkpoint(runner, metrics)
        if is_main_process():
            self.file_backend.clear()
