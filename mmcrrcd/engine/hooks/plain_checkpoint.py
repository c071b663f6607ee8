"""Checkpoints that today's PyTorch loads again."""
from mmengine.hooks import Hook

from mmcrrcd.registry import HOOKS


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Leaves only tensors and plain values in checkpoints.

    mmengine 0.10.7 stores the history of each logged number as an object, which ``torch.load`` refuses since 2.6
    (``weights_only``), so its runs cannot be resumed. The log files keep those numbers; training does not need them.
    """

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        hub = checkpoint['message_hub']
        hub['log_scalars'] = {}
        values = {key: plain(value) for key, value in hub['runtime_info'].items()}
        hub['runtime_info'] = {key: value for key, value in values.items() if value is not None}


def plain(value):
    """A number, text or a list of them (mmengine keeps the epochs of its checkpoints so); None for anything else."""
    if hasattr(value, 'item') and value.size == 1:       # NumPy's numbers, which metrics like to return
        value = value.item()
    numbers = isinstance(value, list) and all(isinstance(each, (int, float, str)) for each in value)
    return value if numbers or isinstance(value, (int, float, str, bool)) else None
