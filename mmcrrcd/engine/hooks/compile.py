"""Compiled networks and losses."""
from mmengine.hooks import Hook
from mmpretrain.models import ImageClassifier
from torch import nn

from mmcrrcd.models.algorithms import Distiller
from mmcrrcd.models.networks import body, unwrapped
from mmcrrcd.registry import HOOKS


def heavy_parts(model: nn.Module) -> list[nn.Module]:
    """What of ``model`` to compile: the backbones of student and teacher, what an adapter is around, and the losses. Each loss
    says by :meth:`DistillLoss.compile` what that means. Of a plain classifier of mmpretrain, its backbone.
    """
    if not isinstance(model, Distiller):
        return [model.backbone] if isinstance(model, ImageClassifier) else [model]
    parts = [body(network) for network in (model.student, model.teacher) if network is not None]
    return [part for part in parts if part is not None] + list(model.losses.values())


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
        """Compiles backbones and losses."""
        model = unwrapped(runner.model)
        for part in heavy_parts(model):
            part.compile(**self.options)
