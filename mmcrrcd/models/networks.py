"""From any network to a NetworkOutput: mmpretrain's classifiers, and plain modules through adapters."""
from mmpretrain.models import ImageClassifier, LinearClsHead
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from mmcrrcd.structures import NetworkOutput

from .backbones.base import StageBackbone


def extract(network: nn.Module, images: Tensor, backbone_gradient: float = 1.0) -> NetworkOutput:
    """What ``network`` says of ``images`` (N, 3, H, W); embedding and logits in float32.

    The gradient of the logits is multiplied by ``backbone_gradient`` where it leaves the head of an mmpretrain classifier.

    ``network`` is an mmpretrain ``ImageClassifier``, or has a ``extract(images)`` method of its own.
    """
    if not isinstance(network, ImageClassifier):
        return network.extract(images)
    features = network.backbone(images)
    maps, pre_activations = features_as_maps(network.backbone, features, images), ()
    has_stem = isinstance(network.backbone, StageBackbone)
    if has_stem:
        number = len(network.backbone.stages) + 1
        maps, pre_activations = features[:number], features[number:-1]
    pooled = features[-1:]
    if network.with_neck:
        pooled = network.neck(pooled)
    embedding = network.head.pre_logits(pooled)
    for_head = pooled
    if backbone_gradient != 1:                           # the same numbers, whose gradient is multiplied on the way back
        for_head = tree_map_only(Tensor, lambda x: backbone_gradient * x + (1 - backbone_gradient) * x.detach(), pooled)
    logits = network.head(for_head).float()
    return NetworkOutput(maps, embedding.float(), logits, tuple(images.shape[2:]), pre_activations, has_stem)


def stages_of(backbone: nn.Module) -> list[nn.Module]:
    """The modules whose outputs are the stages' of a backbone of mmpretrain; [] where they have no usual name."""
    found = (getattr(backbone, name, None) for name in ('stages', 'layers'))
    return next((list(each) for each in found if isinstance(each, (nn.ModuleList, nn.Sequential))), [])


def keep_output(module: nn.Module, inputs, output) -> None:
    """A hook. It keeps the output in the module itself, so that a copy of the module has its own."""
    module.__dict__['kept'] = output[0] if isinstance(output, tuple) else output


def ask_for_feature_maps(network: nn.Module | None) -> None:
    """From now on the outputs of ``network`` have feature maps also where its backbone pools them, as ConvNeXt does, or hands
    on tokens, as a vision transformer.
    """
    if isinstance(network, ImageClassifier) and not isinstance(network.backbone, StageBackbone):
        for stage in stages_of(network.backbone):
            stage.register_forward_hook(keep_output)


def as_map(output: Tensor, images: Tensor, extra: int) -> Tensor | None:
    """A stage's output as a feature map (N, C, H, W); of tokens (N, L, C) those of patches, whose map is shaped as the images.

    None where it is no map. ``extra``: of the tokens, the first ones, that are of no patch.
    """
    if not isinstance(output, Tensor) or output.dim() not in (3, 4):
        return None
    if output.dim() == 4:
        return output
    patches = output[:, extra:].transpose(1, 2)
    number, ratio = patches.shape[2], images.shape[2] / images.shape[3]
    height = max(round((number * ratio)**0.5), 1)
    return None if number % height else patches.unflatten(2, (height, number // height))


def features_as_maps(backbone: nn.Module, features: tuple, images: Tensor) -> tuple[Tensor, ...]:
    """``features`` where they are feature maps, otherwise what the stages gave (:func:`ask_for_feature_maps`), else ()."""
    kept = [stage.__dict__.pop('kept', None) for stage in stages_of(backbone)]
    if all(isinstance(each, Tensor) and each.dim() == 4 for each in features):
        return features
    maps = tuple(as_map(each, images, getattr(backbone, 'num_extra_tokens', 0)) for each in kept)
    return () if any(each is None for each in maps) else maps


def body(network: nn.Module) -> nn.Module | None:
    """The module that does the work of :func:`extract`: a classifier's backbone, what an adapter is around; None where that is
    no module of torch, as of :class:`OnnxNetwork`.
    """
    inner = getattr(network, 'backbone' if isinstance(network, ImageClassifier) else 'network', None)
    return inner if isinstance(inner, nn.Module) else None


def ask_for_pre_activations(network: nn.Module) -> None:
    """From now on, the outputs of ``network`` have ``pre_activations``; where its backbone is none of this package's, they do
    not.
    """
    if isinstance(network, ImageClassifier) and isinstance(network.backbone, StageBackbone):
        network.backbone.gives_pre_activations = True


def weight_and_bias(layer: nn.Module | None) -> tuple[Tensor, Tensor] | None:
    """Of a linear layer; None for any other."""
    if not isinstance(layer, nn.Linear):
        return None
    return layer.weight, layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias


def linear_classifier(network: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Weight (classes, D) and bias (classes,) of the linear layer that makes a network's logits of its embedding; None where
    there is no such layer. A network of your own tells it by a method ``teacher_classifier()``.
    """
    if hasattr(network, 'teacher_classifier'):
        return network.teacher_classifier()
    is_linear = isinstance(network, ImageClassifier) and isinstance(network.head, LinearClsHead)
    return weight_and_bias(network.head.fc) if is_linear else None
