"""Checkpoints that survive a kill while they are being written."""
import os

from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook

from mmcrrcd.registry import HOOKS


@register_backend('mmcrrcd_atomic', force=True)
class AtomicBackend(LocalBackend):
    """Local files that appear whole or not at all; what is removed stays until ``clear``."""

    def __init__(self):
        self.outdated = []

    def put(self, obj: bytes, filepath: str) -> None:
        part = f'{filepath}.part'
        super().put(obj, part)
        os.replace(part, filepath)

    def remove(self, filepath: str) -> None:
        self.outdated.append(filepath)

    def clear(self) -> None:
        for path in self.outdated:
            super().remove(path)
        self.outdated.clear()


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's hook with the same arguments, for local disks, that always leaves a checkpoint to resume from.

    mmengine 0.10.7 removes the old checkpoint before it writes the new one, and overwrites in place when the same epoch is
    saved again with a new best score: a kill in between leaves ``last_checkpoint`` pointing at nothing, or at half a file.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, backend_args=dict(backend='mmcrrcd_atomic'), **kwargs)

    def _save_checkpoint_with_step(self, runner, step, meta) -> None:
        super()._save_checkpoint_with_step(runner, step, meta)
        self.file_backend.clear()
