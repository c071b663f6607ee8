"""The relational contrastive loss, Eq. 11 of the paper: the headline of this package."""
import math

import torch
from mmengine import dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather as all_gather_with_gradient
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mmcrrcd.errors import InputError, check_positive
from mmcrrcd.models.memory import EmbeddingQueue
from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import DistillLoss
from .critic import Projected, RelationCritic
from .relation import FeatureRelation

# Peak memory is anchors at once x ((batch + negatives) x dim + batch x negatives). So many are taken at once and kept for the
# backward pass; more than that are taken CHUNK at a time and computed again there.
KEPT, CHUNK = 8, 3


def contrast(positive: Tensor, negative: Tensor, use: Tensor, tau: float, log_offset: Tensor | float | None) -> Tensor:
    """Loss of each (anchor, sample) pair from its scores.

    Args:
        positive: (A, B) scores of F^{t,s}(a, i) with F^t(a, i).
        negative: (A, B, n) scores of F^{t,s}(a, i) with F^t(a, k).
        use: (B, n) bool, may queue entry k be a negative of sample i?
        tau: temperature.
        log_offset: log of what Eq. 10 adds in its denominator, so that h = sigmoid(s / tau - log_offset) and the loss is
            -log h(positive) - sum over k of log(1 - h(negative_k)). None for a softmax over the positive and its negatives.

    Returns:
        (A, B). Eq. 11 multiplies the sum by n again; like CRD this sums over the n negatives once.
    """
    positive, negative = positive / tau, negative / tau
    if log_offset is None:
        negative = negative.masked_fill(~use, -torch.inf)
        return torch.logaddexp(positive, negative.logsumexp(-1)) - positive
    return -F.logsigmoid(positive - log_offset) - (F.logsigmoid(log_offset - negative) * use).sum(-1)


@LOSSES.register_module()
class RelationContrastLoss(DistillLoss):
    """Pulls F^{t,s}(e^t_a, e^s_i) to F^t(e^t_a, e^t_i) and away from F^t(e^t_a, e^t_k) of the queue's samples k.

    Averaged over the pairs of an anchor a and a sample i != a. The queue takes the batch after scoring; until it has been
    filled once the loss is zero. Without a queue the samples k are those of the batch, the anchor
    among them. With several processes, anchors and queue are the same on every rank.

    Args:
        dim: width of relations and critic.
        num_negatives: n, the length of the queue; at least the number of samples in a batch of all processes. None for no
            queue.
        tau: temperature of the critic.
        num_anchors: how many samples of the batch serve as anchors, None for all. The batch is shuffled, so its first
            samples are as random as any.
        sampling: 'supervised', negatives are of another class; 'unsupervised', of another image.
        normalizer: what turns a score into a probability.
            'softmax': over the positive and its negatives (InfoNCE);
            'batch': Eq. 10 with the constant Z of CRD, m x the mean of exp(s / tau) over the first counted batch, under
            exp(s / tau); m cancels; 'none': Eq. 10 as printed.
        center: see :class:`RelationCritic`.
        num_samples: m, the size of the data set, for ``normalizer='none'``.

    Shown in the log: ``score_positive`` and ``score_negative``, the mean cosine of the critic.
    """

    def __init__(self, dim: int = 128, num_negatives: int | None = 512, tau: float = 0.1, num_anchors: int | None = 8,
                 sampling: str = 'supervised', normalizer: str = 'softmax', center: str | None = 'anchor',
                 num_samples: int | None = None):
        super().__init__()
        if sampling not in ('supervised', 'unsupervised'):
            raise InputError(f"sampling is 'supervised' or 'unsupervised', got {sampling!r}")
        if normalizer not in ('softmax', 'batch', 'none'):
            raise InputError(f"normalizer is 'softmax', 'batch' or 'none', got {normalizer!r}")
        if normalizer == 'none' and not num_samples:
            raise InputError("normalizer='none' needs num_samples, the number of training images")
        check_positive(tau=tau)
        whole = dict(dim=dim, num_negatives=num_negatives, num_anchors=num_anchors, num_samples=num_samples)
        check_positive(whole=True, **{name: value for name, value in whole.items() if value is not None})
        self.dim, self.num_negatives, self.tau = dim, num_negatives, tau
        self.num_anchors, self.sampling, self.normalizer, self.num_samples = num_anchors, sampling, normalizer, num_samples
        self.critic = RelationCritic(dim, center)
        self.register_buffer('log_mean', torch.zeros(()) - torch.inf)        # log of the mean of exp(s / tau)
        self._offset_known = False

    def build(self, student: NetworkOutput, teacher: NetworkOutput) -> None:
        """Make what depends on the networks' widths."""
        width_t, width_s = teacher.embedding.shape[1], student.embedding.shape[1]
        self.teacher_relation = FeatureRelation(width_t, width_t, self.dim)
        self.cross_relation = FeatureRelation(width_t, width_s, self.dim)
        self.queue = None if self.num_negatives is None else EmbeddingQueue(self.num_negatives, width_t)

    def compile(self, **options) -> None:
        """Compiles the scores and their loss. Not the queue: torch.compile (2.14) keeps it for the backward pass as it is
        after the batch went in, and so returns wrong gradients once the size of the batch has changed.
        """
        self._part = torch.compile(self._part, **options)

    def check_batch(self, size: int) -> None:
        """Raises InputError where a batch of ``size`` samples, of all processes together, does not fit the queue."""
        if self.num_negatives is not None and size > self.num_negatives:
            raise InputError(f'the queue holds num_negatives={self.num_negatives} samples, fewer than the batch of {size}')

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        everyone = torch.cat(dist.all_gather(teacher.embedding))
        keys = batch.labels if self.sampling == 'supervised' else batch.index
        if keys is None:
            raise InputError("sampling='unsupervised' needs the images' positions: sample_idx in the pipeline's meta_keys")
        everyones_keys = torch.cat(dist.all_gather(keys))
        self.check_batch(len(everyone))

        anchors = everyone[:self.num_anchors]
        place = torch.arange(len(everyone), device=keys.device).view(dist.get_world_size(), -1)[dist.get_rank()]
        valid = torch.arange(len(anchors), device=keys.device)[:, None] != place
        if self.queue is None:
            others, others_keys, full = everyone, everyones_keys, torch.ones((), dtype=torch.bool, device=keys.device)
        else:
            others, others_keys, full = self.queue.embedding, self.queue.key, self.queue.full
        use = keys[:, None] != others_keys
        batch_t, batch_s, own = teacher.embedding, student.embedding, slice(None)
        if self.critic.center == 'anchor' and dist.get_world_size() > 1:
            # The mean is that of the whole batch, so the relations of all of it are needed; and so are their gradients.
            batch_t, batch_s, own = everyone, torch.cat(all_gather_with_gradient(student.embedding.contiguous())), place
        # A copy: the backward pass needs these negatives, and the queue moves on before it.
        teacher, cross = self.project(anchors, batch_s, torch.cat([batch_t, others]))
        size = KEPT if len(anchors) <= KEPT else CHUNK
        pieces = [(teacher._replace(anchors=of_teacher), cross._replace(anchors=of_cross), their_valid) for
                  of_teacher, of_cross, their_valid in zip(teacher.anchors.split(size), cross.anchors.split(size),
                                                           valid.split(size), strict=True)]
        if self.normalizer == 'batch' and not self._offset_known and full:
            self._set_offset(pieces, own, use)
        total, shown = 0, 0
        for piece in pieces:
            inputs = (*piece, own, use)
            part, scores = (checkpoint(self._part, *inputs, use_reentrant=False, preserve_rng_state=False) if len(pieces) > 1
                            else self._part(*inputs))
            total, shown = total + part, shown + scores
        self.log_vars = dict(score_positive=shown[0] / shown[1].clamp(min=1), score_negative=shown[2] / shown[3].clamp(min=1))

        if self.queue is not None:
            self.queue.push(everyone, everyones_keys)
        pairs = max(len(anchors) * (len(everyone) - 1), 1)
        return full.float() * total * dist.get_world_size() / pairs

    def project(self, anchors: Tensor, batch_s: Tensor, teachers: Tensor) -> tuple[Projected, Projected]:
        """For :meth:`scores`: ``anchors`` (A, Dt), the student's embeddings of a batch (B, Ds), the teacher's (B + n, Dt) of
        the batch and then the queue. Each is projected once, however many anchors there are.
        """
        return (self.critic.teacher(self.teacher_relation, anchors, teachers),
                self.critic.cross(self.cross_relation, anchors, batch_s))

    def scores(self, teacher: Projected, cross: Projected, own: slice | Tensor = slice(None)) -> tuple[Tensor, Tensor]:
        """Positive (A, b) and negative (A, b, n) scores of the samples ``own`` (b of them) of a batch of B.

        Cosines; inner products are divided by the lengths, not the (A, B + n, dim) vectors.
        """
        (vectors_t, length_t), (vectors_s, length_s) = self.critic.compared(teacher), self.critic.compared(cross)
        batch = vectors_s.shape[1]
        vectors_s, length_s = vectors_s[:, own], length_s[:, own]
        positive = (vectors_t[:, :batch][:, own] * vectors_s).sum(-1) / (length_t[:, :batch][:, own] * length_s)
        negative = vectors_s @ vectors_t[:, batch:].mT / length_s[..., None] / length_t[:, None, batch:]
        return positive, negative

    def _part(self, teacher, cross, valid, own, use) -> tuple[Tensor, Tensor]:
        """Sum of the loss over the valid pairs of some anchors, and the sums and counts behind ``shown``."""
        positive, negative = self.scores(teacher, cross, own)
        loss = contrast(positive, negative, use, self.tau, self._log_offset(use.shape[1]))
        with torch.no_grad():
            counts, used = valid.to(negative), use.to(negative)
            negatives = torch.einsum('abn,bn->ab', negative, used)
            shown = torch.stack([(positive * counts).sum(), counts.sum(), (negatives * counts).sum(),
                                 (counts * used.sum(-1)).sum()])
        return (loss * valid).sum(), shown

    def _log_offset(self, n: int) -> Tensor | float | None:
        if self.normalizer == 'softmax':
            return None
        # Eq. 10: P / (P + n / m), with P = exp(s / tau) as printed, or over Z = m x mean.
        log_n = math.log(n)
        return log_n + self.log_mean.nan_to_num(neginf=0) if self.normalizer == 'batch' else log_n - math.log(self.num_samples)

    @torch.no_grad()
    def _set_offset(self, pieces, own, use) -> None:
        """The constant Z: of the first batch that counts, over all processes; once and for all."""
        self._offset_known = True
        if self.log_mean.isfinite():                     # from a checkpoint
            return
        sums = self.log_mean.new_zeros(2)
        for teacher, cross, valid in pieces:
            _, negative = self.scores(teacher, cross, own)
            counted = valid[..., None] & use
            sums += torch.stack([((negative / self.tau).exp() * counted).sum(), counted.sum()])
        dist.all_reduce(sums)
        self.log_mean.copy_((sums[0] / sums[1]).log())
