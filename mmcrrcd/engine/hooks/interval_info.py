"""What the log shows, without waiting for the device in every iteration."""
import math
from collections import defaultdict

import torch
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.logging import HistoryBuffer

from mmcrrcd.registry import HOOKS


@HOOKS.register_module()
class IntervalInfoHook(RuntimeInfoHook):
    """mmengine's hook, with means over the logger's interval in place of the values of each iteration.

    mmengine's hook takes each number of each iteration off the device, which makes the host wait. It appends it to an array of
    the whole training, which is copied for it. This one keeps the tensors where they are. It fetches their means at once, when
    the logger wants them and at the end of an epoch. Where the mean of the loss is not finite, ``lost_iter`` of the message hub
    tells :class:`FiniteHook` the first such iteration, from 0.

    The log processor must not average them again: ``mean_pattern=r'^(time|data_time)$'``.
    """

    def before_train(self, runner) -> None:
        """Takes over the interval of the log."""
        super().before_train(runner)
        self.interval = next((hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)), 100)
        self.values = defaultdict(list)
        for name in ('time', 'data_time'):               # IterTimerHook adds to them in every iteration
            runner.message_hub.log_scalars[f'train/{name}'] = HistoryBuffer(max_length=self.interval)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Notes the iteration."""
        runner.message_hub.update_info('iter', runner.iter)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        """Keeps what the step returned; at the end of an interval its means go to the log."""
        for name, value in (outputs or {}).items():
            self.values[name].append(value.detach())
        if self.every_n_inner_iters(batch_idx, self.interval) or self.end_of_epoch(runner.train_dataloader, batch_idx):
            self.publish(runner)

    def publish(self, runner) -> None:
        """Hand the means since the last time to the message hub: one wait for the device."""
        hub = runner.message_hub
        for name, rates in runner.optim_wrapper.get_lr().items():
            hub.update_scalar(f'train/{name}', rates[0])
        if self.values:
            stacked = {name: torch.stack(values).float() for name, values in self.values.items()}
            means = torch.stack([values.mean() for values in stacked.values()]).tolist()
            for name, mean in zip(self.values, means):
                hub.update_scalar(f'train/{name}', mean)
                if name == 'loss' and not math.isfinite(mean):
                    finite = stacked[name].isfinite().tolist()
                    if False in finite:                  # otherwise their sum alone is too large
                        hub.update_info('lost_iter', runner.iter + 1 - len(finite) + finite.index(False), resumed=False)
        self.values.clear()
