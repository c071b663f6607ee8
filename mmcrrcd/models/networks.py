"""From any network to a NetworkOutput: mmpretrain's classifiers, and plain modules through adapters."""
from collections.abc import Callable

import torch
from mmengine.model import is_model_wrapper
from mmpretrain.models import (ConformerHead, DeiTClsHead, EfficientFormerClsHead, ImageClassifier, LeViTClsHead, LinearClsHead,
                               MultiLabelClsHead, MultiTaskHead)
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from mmcrrcd.errors import InputError
from mmcrrcd.structures import NetworkOutput

from .backbones.base import StageBackbone


def has_two_classifiers(head: nn.Module) -> bool:
    """Has a head of mmpretrain a second classifier, for a distillation of its own?"""
    return (isinstance(head, (ConformerHead, DeiTClsHead)) or isinstance(head, LeViTClsHead) and head.distillation
            or isinstance(head, EfficientFormerClsHead) and head.dist)


def check_network(network: nn.Module, role: str) -> None:
    """Raises InputError where :func:`extract` does not know what to ask of ``network``, a 'student' or a 'teacher'."""
    if not isinstance(network, ImageClassifier):
        return
    head = network.head
    if head is None:
        raise InputError(f'the {role} has no head: an ImageClassifier needs one to tell classes')
    if isinstance(head, (MultiLabelClsHead, MultiTaskHead)):
        raise InputError(f"the {role}'s head is a {type(head).__name__}: images of several labels or tasks are not supported, "
                         'one class for each image is')
    if role == 'student' and has_two_classifiers(head):
        raise InputError(f"the student's head, {type(head).__name__}, has two classifiers, which are not trained here: say "
                         'distillation=False where it has that setting, or take another head')


NARROW = 16                                              # input channels, see :func:`use_channels_last`


def as_contiguous(module: nn.Module, inputs: tuple) -> tuple:
    """A hook: images and maps come to ``module`` in the usual memory format."""
    return tuple(x.contiguous() if isinstance(x, Tensor) else x for x in inputs)


def use_contiguous(module: nn.Module) -> None:
    """Has ``module`` work in the usual memory format, whatever the others around it do."""
    if as_contiguous not in module._forward_pre_hooks.values():
        module.register_forward_pre_hook(as_contiguous)
    for parameter in module.parameters():                # of 1x1 kernels ``contiguous()`` would leave the strides as they are
        parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)


def use_channels_last(network: nn.Module) -> nn.Module:
    """``network`` itself, from now on in channels-last memory, but for layers that PyTorch cannot run so.

    On CPUs with AVX512 torch 2.14 crashes in the gradient of a 1x1 convolution with a stride. It does so from fewer than 16
    channels, of maps of more than 48 pixels.
    """
    network.to(memory_format=torch.channels_last)
    for layer in network.modules():
        if (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and max(layer.stride) > 1
                and layer.in_channels < NARROW):
            use_contiguous(layer)
    return network


def in_its_format(network: nn.Module, ask: Callable):
    """What ``ask()`` says, which asks ``network``.

    Some networks read their maps in the order of the usual memory format, as mmpretrain's VGG and AlexNet do. Such a one is
    known by its error, set to that format, and asked again.
    """
    try:
        return ask()
    except RuntimeError as error:
        inner = body(network)
        if 'view size is not compatible' not in str(error) or inner is None:
            raise
        if as_contiguous in inner._forward_pre_hooks.values():           # it is not that
            raise
        use_contiguous(inner)
        return ask()


def extract(network: nn.Module, images: Tensor, backbone_gradient: float = 1.0) -> NetworkOutput:
    """What ``network`` says of ``images`` (N, 3, H, W); embedding and logits in float32.

    The gradient of the logits is multiplied by ``backbone_gradient`` where it leaves the head of an mmpretrain classifier.
    Where a head has several embeddings, as that of a distilled DeiT, they are put side by side.

    ``network`` is an mmpretrain ``ImageClassifier``, or has a ``extract(images)`` method of its own.
    """
    return in_its_format(network, lambda: _extract(network, images, backbone_gradient))


def _extract(network: nn.Module, images: Tensor, backbone_gradient: float) -> NetworkOutput:
    if not isinstance(network, ImageClassifier):
        return network.extract(images)
    pooled = features = network.backbone(images)
    has_stem, pre_activations = isinstance(network.backbone, StageBackbone), ()
    if has_stem:
        number = len(network.backbone.stages) + 1
        maps, pre_activations = features[:number], features[number:-1]
        pooled = features[-1:]
    else:
        maps = features_as_maps(network.backbone, features, images)
    if network.with_neck:                                # one of mmpretrain may need the maps of all stages
        pooled = network.neck(pooled)
    embedding = network.head.pre_logits(pooled)
    if isinstance(embedding, (list, tuple)):
        embedding = torch.cat(tuple(embedding), dim=1)
    for_head = pooled
    if backbone_gradient != 1:                           # the same numbers, whose gradient is multiplied on the way back
        for_head = tree_map_only(Tensor, lambda x: backbone_gradient * x + (1 - backbone_gradient) * x.detach(), pooled)
    logits = network.head(for_head)
    if isinstance(network.head, ConformerHead):          # as its own ``predict`` does
        logits = sum(logits)
    return NetworkOutput(maps, embedding.float(), logits.float(), tuple(images.shape[2:]), pre_activations, has_stem)


def stages_of(backbone: nn.Module) -> list[nn.Module]:
    """The modules whose outputs are the stages' of a backbone of mmpretrain; [] where they have no usual name."""
    found = (getattr(backbone, name, None) for name in ('stages', 'layers'))
    return next((list(each) for each in found if isinstance(each, (nn.ModuleList, nn.Sequential))), [])


def keep_output(module: nn.Module, inputs, output) -> None:
    """A hook. It keeps the output in the module itself, so that a copy of the module has its own."""
    module.__dict__['kept'] = output[0] if isinstance(output, tuple) else output


def ask_for_feature_maps(network: nn.Module | None) -> None:
    """From now on the outputs of ``network`` have feature maps. Its backbone may pool them, as ConvNeXt does, or hand on
    tokens, as a vision transformer.
    """
    if isinstance(network, ImageClassifier) and not isinstance(network.backbone, StageBackbone):
        for stage in stages_of(network.backbone):
            stage.register_forward_hook(keep_output)


def as_map(output: Tensor, images: Tensor, extra: int) -> Tensor | None:
    """A stage's output as a feature map (N, C, H, W). Of tokens (N, L, C) those of patches count, whose map is shaped as the
    images.

    None where it is no map. ``extra``: of the tokens, the first ones, that are of no patch.
    """
    if not isinstance(output, Tensor) or output.dim() not in (3, 4):
        return None
    if output.dim() == 4:                                # some, as ViTSAM, put channels last: told by the shape of the images
        (height, width), (a, b, c) = images.shape[2:], output.shape[1:]
        return output.permute(0, 3, 1, 2) if b * width != c * height and a * width == b * height else output
    patches = output[:, extra:].transpose(1, 2)
    number, ratio = patches.shape[2], images.shape[2] / images.shape[3]
    height = max(round((number * ratio)**0.5), 1)
    return None if number % height else patches.unflatten(2, (height, number // height))


def features_as_maps(backbone: nn.Module, features: tuple, images: Tensor) -> tuple[Tensor, ...]:
    """``features`` where they are feature maps, otherwise what the stages gave (:func:`ask_for_feature_maps`), else ()."""
    features = (features, ) if isinstance(features, Tensor) else tuple(features)
    kept = [stage.__dict__.pop('kept', None) for stage in stages_of(backbone)]
    if all(isinstance(each, Tensor) and each.dim() == 4 for each in features):
        return features
    maps = tuple(as_map(each, images, getattr(backbone, 'num_extra_tokens', 0)) for each in kept)
    return () if any(each is None for each in maps) else maps


def unwrapped(model: nn.Module) -> nn.Module:
    """The model without what wraps it for several processes."""
    return model.module if is_model_wrapper(model) else model


def body(network: nn.Module) -> nn.Module | None:
    """The module that does the work of :func:`extract`. That is a classifier's backbone, or what an adapter is around; None
    where that is no module of torch, as of :class:`OnnxNetwork`.
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
    """Weight (classes, D) and bias of the linear layer that makes a network's logits of its embedding; None where there is no
    such layer. A network of your own tells it by a method ``teacher_classifier()``.
    """
    if hasattr(network, 'teacher_classifier'):
        return network.teacher_classifier()
    is_linear = isinstance(network, ImageClassifier) and isinstance(network.head, LinearClsHead)
    return weight_and_bias(network.head.fc) if is_linear else None
