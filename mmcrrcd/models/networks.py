"""From any network to a Stream: mmpretrain's classifiers, and plain modules through an adapter."""
from mmpretrain.models import ImageClassifier
from torch import Tensor, nn

from mmcrrcd.registry import MODELS
from mmcrrcd.structures import Stream

from .backbones.base import StageBackbone


def look(network: nn.Module, images: Tensor) -> Stream:
    """What ``network`` says of ``images`` (N, 3, H, W); embedding and logits in float32.

    ``network`` is an mmpretrain ``ImageClassifier``, or has a ``stream(images)`` method of its own.
    """
    if not isinstance(network, ImageClassifier):
        return network.stream(images)
    features = network.backbone(images)
    maps, raw = features, ()
    if isinstance(network.backbone, StageBackbone):
        number = len(network.backbone.stages) + 1
        maps, raw = features[:number], features[number:-1]
    pooled = features[-1:]
    if network.with_neck:
        pooled = network.neck(pooled)
    embedding = network.head.pre_logits(pooled)
    return Stream(maps, embedding.float(), network.head(pooled).float(), tuple(images.shape[2:]), raw)


def ask_for_raw(network: nn.Module) -> None:
    """From now on, the streams of ``network`` have ``raw``; where its backbone is none of this package's, they do not."""
    if isinstance(network, ImageClassifier) and isinstance(network.backbone, StageBackbone):
        network.backbone.gives_raw = True


@MODELS.register_module()
class PlainNetwork(nn.Module):
    """A plain module as teacher: its last linear layer tells embedding and logits apart.

    Args:
        network: a module, or its config, that maps images (N, 3, H, W) to logits (N, classes); it gives no maps.
        classifier: name of the linear layer whose input is the embedding, ``'fc'`` in torchvision's ResNets.

    Example:
        >>> teacher = PlainNetwork(torchvision.models.resnet18(), classifier='fc')
    """

    def __init__(self, network: nn.Module | dict, classifier: str = 'fc'):
        super().__init__()
        self.network = MODELS.build(network) if isinstance(network, dict) else network
        self.classifier = classifier

    def stream(self, images: Tensor) -> Stream:
        caught = []
        layer = self.network.get_submodule(self.classifier)
        handle = layer.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
        try:
            logits = self.network(images)
        finally:
            handle.remove()
        return Stream((), caught[-1].float(), logits.float(), tuple(images.shape[2:]))
