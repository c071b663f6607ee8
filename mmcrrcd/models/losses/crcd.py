"""Complementary relation contrastive distillation (Zhu et al., CVPR 2021, https://arxiv.org/abs/2103.16367)."""
import math

import torch
from mmengine import dist
from torch import Tensor
from torch.nn import functional as F

from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import DistillLoss
from .crd import MemoryContrast

OFFSET = 1e-6                # in every coordinate of a difference, so that a relation of a vector to itself has a direction


def relation_scores(features: Tensor, bank: Tensor, index: Tensor, anchors: Tensor) -> Tensor:
    """Cosines of the relation anchor-sample with the relations anchor-row; a relation is l2(x - anchor + 1e-6).

    Args:
        features: (b, d) unit vectors of the samples.
        bank: (N, d) unit vectors of the other network; no gradient goes there.
        index: (b, 1 + K) rows of the bank for each sample.
        anchors: (A,) rows of the bank.

    Returns:
        (b, A, 1 + K). The b x A x (1 + K) relations of the rows are never made. Their inner products and norms are expanded
        into inner products of the vectors. Where a row is the anchor itself nothing would be left of that in float32, but
        the relation is known: all coordinates are equal.
    """
    anchor_vectors, rows = bank[anchors], bank[index]
    relation = F.normalize(features[:, None] - anchor_vectors + OFFSET, dim=-1)                 # (b, A, d)
    subtracted = anchor_vectors - OFFSET
    product = relation @ rows.mT - (relation * subtracted).sum(-1, keepdim=True)
    square = rows.square().sum(-1)[:, None] - 2 * (subtracted @ rows.mT) + subtracted.square().sum(-1)[:, None]
    cosine = product * square.clamp(min=8 * torch.finfo(square.dtype).eps).rsqrt()
    itself = index[:, None] == anchors[:, None]
    return torch.where(itself, relation.sum(-1, keepdim=True) / math.sqrt(bank.shape[1]), cosine)


def logit_gradient(logits: Tensor, labels: Tensor) -> Tensor:
    """Gradient of each sample's cross-entropy at its logits (b, classes): softmax - one-hot."""
    return logits.softmax(1) - F.one_hot(labels, logits.shape[1])


class RelationMemoryContrast(MemoryContrast):
    """:class:`MemoryContrast` of relations to anchors; the anchors are the bank's rows of the batch of all processes."""

    def scores(self, features: Tensor, bank: Tensor, index: Tensor) -> Tensor:
        """Those of relations to the anchors of all processes."""
        anchors = torch.cat(dist.all_gather(index[:, 0].contiguous()))
        return relation_scores(features, bank, index, anchors)


@LOSSES.register_module()
class CRCDLoss(DistillLoss):
    """The contrast of feature relations plus, with ``gradient``, that of gradient relations.

    The published gradient is that of the cross-entropy at the embedding, W^T (softmax - one-hot) for a linear classifier W.
    A learned linear layer then projects it to ``dim``. A frozen teacher has no graph to differentiate, and a
    :class:`NetworkOutput` does not hold W. So the gradient is taken at the logits, where both networks have it in closed form.
    The learned layer stands for the product of the two linear maps, and every published projection is one of ours. It is
    each sample's own; divided by the batch size, as there, it would be small beside the layer's bias.

    Args:
        num_samples: N, the number of training images, as in :class:`CRDLoss`.
        dim, num_negatives, temperature, momentum: see :class:`MemoryContrast`.
        gradient: add the gradient relations.
    """

    needs_labels = True

    def __init__(self, num_samples: int, dim: int = 128, num_negatives: int = 500, temperature: float = 0.05,
                 momentum: float = 0.5, gradient: bool = True):
        super().__init__()
        settings = num_samples, dim, num_negatives, temperature, momentum
        self.feature = RelationMemoryContrast(*settings)
        self.gradient = RelationMemoryContrast(*settings) if gradient else None
        self.num_samples = num_samples
        if gradient:
            self.needs = frozenset({'embedding', 'logits'})

    def build(self, student: NetworkOutput, teacher: NetworkOutput) -> None:
        """Makes memories and modules for the widths of embeddings and logits."""
        self.feature.build(student.embedding.shape[1], teacher.embedding.shape[1])
        if self.gradient is not None:
            self.gradient.build(student.logits.shape[1], teacher.logits.shape[1])

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """The contrasts of features and of gradients, a scalar."""
        loss = self.feature(student.embedding, teacher.embedding, batch)
        if self.gradient is not None:
            gradients = (logit_gradient(output.logits, batch.labels) for output in (student, teacher))
            loss = loss + self.gradient(*gradients, batch)
        return loss
