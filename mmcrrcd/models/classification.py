"""The loss of a classifier's head for what it said of a batch, as mmpretrain's own training computes it."""
import copy

import torch
from mmpretrain.models import ArcFaceClsHead, ClsHead, EfficientFormerClsHead, ImageClassifier
from torch import Tensor, nn
from torch.nn import functional as F

from mmcrrcd.errors import WRONG, InputError, explained, first_line
from mmcrrcd.structures import NetworkOutput

from .heads.arcface import arcface_cosine
from .heads.cosine_head import MarginSoftmax, with_margin
from .networks import has_two_classifiers

AS_LOGITS_SAY = {ClsHead.loss, EfficientFormerClsHead.loss}              # how a head's loss comes from its logits alone


def soft_labels(labels: Tensor, classes: int) -> Tensor:
    """A row for each image, (N, classes): 1 at its class, zeros for an image without label, -100."""
    return F.one_hot(labels.clamp(min=0), classes).float() * (labels >= 0)[:, None]


def arcface_logits(head: ArcFaceClsHead, logits: Tensor, labels: Tensor) -> Tensor:
    """The logits (N, classes) of mmpretrain's head, which are without margin, with its margin at each image's own class.

    mmpretrain computes them in a pass of its own, by an arc cosine, whose gradient is infinite at cosines of -1 and 1.
    """
    def margin(cosine: Tensor) -> Tensor:
        added = arcface_cosine(cosine, head.margins[labels])
        return torch.where(cosine > 0, added, cosine) if head.easy_margin else added

    return with_margin(logits, labels, margin, head.scale)


def loss_of_logits(loss: nn.Module, logits: Tensor, target: Tensor) -> Tensor:
    """mmpretrain's ``loss`` of logits (N, classes), averaged over the N images. Scalar.

    Args:
        target: N classes, or soft labels (N, classes). Some losses take soft labels only, so these are made for them.
    """
    if target.dim() == 1 and (getattr(loss, 'use_soft', False) or getattr(loss, 'use_sigmoid', False)):
        target = soft_labels(target, logits.shape[1])
    return loss(logits, target, avg_factor=len(logits))


def classification_loss(network: ImageClassifier, output: NetworkOutput, target: Tensor) -> Tensor:
    """The loss of the network's head for its own ``output``. Scalar.

    A head whose loss needs more than the logits offers ``loss_of(output, labels)``, as :class:`MagFaceHead` does.

    Args:
        target: N classes, or soft labels (N, classes) where :func:`check_head` allows them.
    """
    head = network.head
    if hasattr(head, 'loss_of'):
        return head.loss_of(output, target)
    logits = arcface_logits(head, output.logits, target) if isinstance(head, ArcFaceClsHead) else output.logits
    return loss_of_logits(head.loss_module, logits, target)


def check_head(head: nn.Module, soft: bool) -> None:
    """Raises InputError where the loss of a head to be trained is none that :func:`classification_loss` can compute.

    Args:
        soft: the labels will be soft ones, of mixed images.
    """
    kind = type(head).__name__
    loss = getattr(head, 'loss_module', None)
    if hasattr(head, 'loss_of') or isinstance(head, ArcFaceClsHead) or isinstance(loss, MarginSoftmax):
        if soft:
            raise InputError(f'the margin of a {kind} is for images of one class, and batch_augments mix images: leave one of '
                             'the two out')
        return
    if has_two_classifiers(head):
        raise InputError(f'the {kind} has a second classifier for a distillation of its own, which mmpretrain cannot train: '
                         'take head and backbone without it')
    if not isinstance(head, ClsHead) or type(head).loss not in AS_LOGITS_SAY or type(head)._get_loss is not ClsHead._get_loss:
        raise InputError(f'the {kind} computes its loss in a way of its own, not from one row of logits an image: take another '
                         'head, or give it a method loss_of(output, labels)')
    if classes := getattr(head, 'num_classes', None):
        labels, loss = torch.zeros(2, dtype=torch.int64), copy.deepcopy(loss)            # some count their images
        what = 'the soft labels of images that batch_augments mix' if soft else 'the classes of images'
        with explained(f'the {type(loss).__name__} of the {kind} cannot take {what}', WRONG, first_line):
            loss_of_logits(loss, torch.zeros(2, classes), soft_labels(labels, classes) if soft else labels)
