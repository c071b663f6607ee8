"""Stops a training that has lost its numbers, before it overwrites anything good."""
import torch
from mmengine.hooks import Hook

from mmcrrcd.checkpoint import find_checkpoint
from mmcrrcd.registry import HOOKS


@HOOKS.register_module()
class FiniteHook(Hook):
    """Raises ``FloatingPointError`` when the loss, or a weight about to be saved, is not finite.

    The loss is looked at every ``interval`` iterations (a look waits for the device), the weights before each checkpoint.
    """

    priority = 'HIGH'                                    # before the checkpoint hook

    def __init__(self, interval: int = 50):
        self.interval = interval

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if self.every_n_train_iters(runner, self.interval) and not torch.isfinite(outputs['loss']).all():
            self._stop(runner, f'the loss is {float(outputs["loss"])}')

    def after_train_epoch(self, runner) -> None:
        for name, value in runner.model.named_parameters():
            if not torch.isfinite(value).all():
                self._stop(runner, f'{name} is not finite')

    @staticmethod
    def _stop(runner, what: str) -> None:
        try:
            kept = f'the last good checkpoint is {find_checkpoint(runner.work_dir)}'
        except FileNotFoundError:
            kept = 'there is no checkpoint yet'
        raise FloatingPointError(f'{what} at iteration {runner.iter + 1} (epoch {runner.epoch + 1}); {kept}. '
                                 'A lower learning rate or weight of the distillation losses usually helps.')
