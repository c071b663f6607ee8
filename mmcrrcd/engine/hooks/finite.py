"""Stops a training that has lost its numbers, before it overwrites anything good."""
import math

from mmengine.hooks import Hook

from mmcrrcd.checkpoint import find_checkpoint, first_not_finite
from mmcrrcd.errors import InputError
from mmcrrcd.registry import HOOKS


@HOOKS.register_module()
class FiniteHook(Hook):
    """Raises ``FloatingPointError`` when the loss, or a weight or buffer about to be saved, is not finite.

    The loss is the one that the log shows. With :class:`IntervalInfoHook` the mean since the last look, which a single NaN
    makes NaN. The error names the iteration, from 1, in which the loss first was not finite. The weights are looked at
    after each epoch, weights and buffers before each checkpoint, the best ones included. A buffer that is not finite before the
    training, as one that nothing has been put into yet, may stay so.
    """

    priority = 'HIGH'                                    # after the numbers are there, before the checkpoint hook

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Stops where the log has a loss that is not finite."""
        scalars = runner.message_hub.log_scalars
        if 'train/loss' in scalars and not math.isfinite(loss := scalars['train/loss'].current()):
            where = runner.message_hub.get_info('lost_iter', runner.iter) + 1
            self._stop(runner, f'the loss is {loss} at iteration {where}')

    def before_run(self, runner) -> None:
        """Notes the buffers that are not finite on purpose."""
        buffers = dict(runner.model.named_buffers())
        self.meant = {name.removeprefix('module.') for name, value in buffers.items() if not value.isfinite().all()}

    def after_train_epoch(self, runner) -> None:
        """Stops where a parameter is not finite."""
        if name := first_not_finite(dict(runner.model.named_parameters())):
            self._stop(runner, f'{name} is not finite after iteration {runner.iter}')

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Stops before a checkpoint with such a value is written."""
        if name := first_not_finite(checkpoint['state_dict'], self.meant):
            self._stop(runner, f'{name} is not finite after iteration {runner.iter}')

    @staticmethod
    def _stop(runner, what: str) -> None:
        try:
            kept = f'the last good checkpoint is {find_checkpoint(runner.work_dir)}'
        except (FileNotFoundError, InputError):
            kept = 'there is no checkpoint yet'
        raise FloatingPointError(f'{what} (epoch {runner.epoch + 1}); {kept}. '
                                 'A lower learning rate or weight of the distillation losses usually helps.')
