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
        checkpoint['message_hub']['log_scalars'] = {}
        info = checkpoint['message_hub']['runtime_info']
        checkpoint['message_hub']['runtime_info'] = {
            key: value for key, value in info.items() if isinstance(value, (int, float, str, bool, type(None)))}
