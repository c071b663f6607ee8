"""From any network to a NetworkOutput: mmpretrain's classifiers, and plain modules through adapters."""
from collections.abc import Callable

import torch
from mmpretrain.models import (ConformerHead, DeiTClsHead, EfficientFormerClsHead, ImageClassifier, LeViTClsHead, LinearClsHead,
                               MultiLabelClsHead, MultiTaskHead)
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from mmcrrcd.errors import InputError
from mmcrrcd.structures import NetworkOutput

from .backbones.base import StageBackbone


def last_linear(network: nn.Module) -> str:
    """The name of the last linear layer of a plain module, which usually is its classifier; 'fc' where there is none."""
    return ([name for name, layer in network.named_modules() if name and isinstance(layer, nn.Linear)] or ['fc'])[-1]


def check_network(network: nn.Module, role: str) -> None:
    """Raises InputError where :func:`extract` does not know what to ask of ``network``, a 'student' or a 'teacher'."""
    kind = type(network).__name__
    if not isinstance(network, ImageClassifier):
        if not hasattr(network, 'extract'):
            raise InputError(f"the {role} is a {kind}, which does not tell its embedding: say dict(type='mmcrrcd.PlainNetwork', "
                             f"network=dict(type=..., ...), classifier='{last_linear(network)}') with its last linear layer, or "
                             "type='mmcrrcd.EmbeddingNetwork' where it ends in its embedding")
        return
    head = network.head
    if head is None:
        raise InputError(f'the {role} has no head: an ImageClassifier needs one to tell classes')
    if isinstance(head, (MultiLabelClsHead, MultiTaskHead)):
        raise InputError(f"the {role}'s head is a {type(head).__name__}: images of several labels or tasks are not supported, one "
                         'class for each image is')
    several = (isinstance(head, (ConformerHead, DeiTClsHead)) or isinstance(head, LeViTClsHead) and head.distillation
               or isinstance(head, EfficientFormerClsHead) and head.dist)
    if role == 'student' and several:
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

    On CPUs with AVX512 torch 2.14 crashes in the gradient of a 1x1 convolution with a stride from fewer than 16 channels, of
    maps of more than 48 pixels.
    """
    network.to(memory_format=torch.channels_last)
    for layer in network.modules():
        if (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and max(layer.stride) > 1
                and layer.in_channels < NARROW):
            use_contiguous(layer)
    return network


def in_its_format(network: nn.Module, ask: Callable):
    """What ``ask()`` says, which asks ``network``.

    A network that reads its maps in the order of the usual memory format, as mmpretrain's VGG and AlexNet do, is known by its
    error, set to that format, and asked again.
    """
    try:
        return ask()
    except RuntimeError as error:
        inner = body(network)
        if inner is None or 'view size is not compatible' not in str(error) or as_contiguous in inner._forward_pre_hooks.values():
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
    else:                                                # transformers give tokens, which are no maps
        maps = tuple(x for x in (features if isinstance(features, (list, tuple)) else [features])
                     if isinstance(x, Tensor) and x.dim() == 4)
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


def classification_loss(network: ImageClassifier, output: NetworkOutput, labels: Tensor) -> Tensor:
    """The loss of the network's head for its own ``output`` of a batch with ``labels`` (N,). Scalar.

    A head whose loss needs more than the logits offers ``loss_of(output, labels)``, as :class:`MagFaceHead` does.
    """
    head = network.head
    return head.loss_of(output, labels) if hasattr(head, 'loss_of') else head.loss_module(output.logits, labels)


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
