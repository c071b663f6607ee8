"""Compiled networks and losses."""
import torch._functorch.config
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import nn

from mmcrrcd.registry import HOOKS


def heavy_parts(model: nn.Module) -> list[nn.Module]:
    """The backbones of student and teacher, and the losses, of an algorithm of this package.

    A loss that keeps something from batch to batch is left out unless it has a ``compile`` of its own, see
    :meth:`RelationContrastLoss.compile`.
    """
    parts = [loss for loss in model.losses.values()
             if not list(loss.buffers()) or type(loss).compile is not nn.Module.compile]
    networks = [model.student] if model.teacher is None else [model.student, model.teacher]
    return [getattr(network, 'backbone', network) for network in networks] + parts


@HOOKS.register_module()
class CompileHook(Hook):
    """Compiles the backbones of student and teacher, and the losses, when training starts.

    By ``module.compile()``, so that names in the state dict stay what they are; data, optimizer and the loop stay as they are,
    too. Worth trying on a GPU, where small networks are bound by the launch of their kernels (docs/speed.md).

    Args:
        options: of ``torch.compile``, for instance ``mode='max-autotune-no-cudagraphs'``.
    """

    def __init__(self, **options):
        self.options = options

    def before_train(self, runner) -> None:
        torch._functorch.config.donated_buffer = False   # CRRCD takes gradients of its losses a second time for the log
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for part in heavy_parts(model):
            part.compile(**self.options)
