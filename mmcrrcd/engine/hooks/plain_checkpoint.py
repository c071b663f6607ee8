"""Checkpoints that today's PyTorch loads again."""
import numpy as np
import torch
from mmengine.hooks import Hook

from mmcrrcd.registry import HOOKS


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Leaves only tensors and plain values in checkpoints.

    mmengine 0.10.7 stores the history of each logged number as an object, which ``torch.load`` refuses since 2.6
    (``weights_only``), so its runs cannot be resumed. The log files keep those numbers; training does not need them.
    ``OneCycleLR`` stores a function, which the resumed run has anyway.
    """

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Replaces mmengine's objects in the checkpoint by plain values."""
        hub = checkpoint['message_hub']
        hub['log_scalars'] = {}
        values = {key: plain(value) for key, value in hub['runtime_info'].items()}
        hub['runtime_info'] = {key: value for key, value in values.items() if value is not None}
        hub['resumed_keys'] = {key: value for key, value in hub['resumed_keys'].items() if key in hub['runtime_info']}
        if 'param_schedulers' in checkpoint:
            checkpoint['param_schedulers'] = without_functions(checkpoint['param_schedulers'])


def plain(value):
    """A number, a text, a tensor, or a list of numbers (mmengine keeps the epochs of its checkpoints); None for the rest."""
    if isinstance(value, np.generic):                    # metrics like to return them
        value = value.item()
    numbers = isinstance(value, list) and all(isinstance(each, int) for each in value)
    return value if numbers or isinstance(value, (int, float, str, torch.Tensor)) else None


def without_functions(value):
    """States of schedulers, in lists and dicts, without the functions in them."""
    if isinstance(value, dict):
        return {key: without_functions(each) for key, each in value.items() if not callable(each)}
    return [without_functions(each) for each in value] if isinstance(value, list) else value
