"""The relational contrastive loss, Eq. 1, 10 and 11 of the paper: the heart of this package."""
import math

import torch
from mmengine import dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather as all_gather_with_gradient
from torch.nn import functional as F

from mmcrrcd.errors import InputError, check_positive
from mmcrrcd.models.memory import EmbeddingQueue
from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import DistillLoss


def standardize(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Each column of ``x`` (B, D) with mean 0 and variance 1 over the batch: batch normalization without weights."""
    return (x - x.mean(0)) / (x.var(0, correction=0) + eps).sqrt()


class Direction(nn.Module):
    """l2(y - x), the direction from an anchor x to another embedding y. Eq. 1 and h of Eq. 10 without weights.

    It is F(x, y) = phi(ReLU(phi_i x - phi_j y)) with phi_i = phi_j = [I; -I] and phi = [-I, I], and h the l2 norm.
    """

    def forward(self, anchors: Tensor, others: Tensor) -> Tensor:
        """Of every anchor and every other: (A, D), (N, D) -> (A, N, D)."""
        return F.normalize(others - anchors[:, None], dim=-1)


class LearnedRelation(nn.Module):
    """l2(h(F(x, y))) with F(x, y) = phi(ReLU(phi_i x - phi_j y)), Eq. 1 and the line above it, and h linear, Eq. 10.

    Args:
        anchor_width, other_width: widths of the two embeddings.
        dim: width of relations, and of what is compared.
        center: 'anchor' subtracts, before l2, the mean over an anchor's relations. A relation carries its anchor in it, so
            without this F and h can shift all scores of an anchor together. None leaves it.
    """

    def __init__(self, anchor_width: int, other_width: int, dim: int, center: str | None):
        super().__init__()
        self.phi_i, self.phi_j = nn.Linear(anchor_width, dim), nn.Linear(other_width, dim)
        self.phi, self.h = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.center = center

    def forward(self, anchors: Tensor, others: Tensor) -> Tensor:
        """Of every anchor and every other: (A, Dx), (N, Dy) -> (A, N, dim)."""
        hidden = F.relu(self.phi_i(anchors)[:, None] - self.phi_j(others), inplace=True)
        return F.normalize(self.transform(hidden), dim=-1)

    def transform(self, hidden: Tensor) -> Tensor:
        """h(phi(hidden)), centered where that is wanted: (A, N, dim) -> (A, N, dim).

        Two linear maps in a row are multiplied into one, and the mean is taken before it, where it costs one map and not N.
        """
        weight, bias = self.h.weight @ self.phi.weight, F.linear(self.phi.bias, self.h.weight, self.h.bias)
        if self.center == 'anchor':
            return F.linear(hidden, weight) - F.linear(hidden.mean(1, keepdim=True), weight)
        return F.linear(hidden, weight, bias)


def contrast(positive: Tensor, negative: Tensor, mask: Tensor, tau: float, log_offset: Tensor | None) -> Tensor:
    """Loss of each pair of an anchor a and a sample i from its scores, Eq. 10 and 11.

    Args:
        positive: (A, B) scores of v^{t,s}(a, i) with v^t(a, i).
        negative: (A, B, N) scores of v^{t,s}(a, i) with v^t(a, k).
        mask: (A, B, N) bool, is image k a negative of the pair?
        tau: temperature.
        log_offset: log of what Eq. 10 adds in its denominator, so that h = sigmoid(s / tau - log_offset) and the loss is
            -log h(positive) - sum over k of log(1 - h(negative_k)). None for a softmax over the positive and its negatives.

    Returns:
        (A, B). Eq. 11 multiplies the sum by n again; like CRD this sums over the n negatives once.
    """
    positive, negative = positive / tau, negative / tau
    if log_offset is None:
        negative = negative.masked_fill(~mask, torch.finfo(negative.dtype).min)          # finite, as all may be masked
        return torch.logaddexp(positive, negative.logsumexp(-1)) - positive
    return -F.logsigmoid(positive - log_offset) - (F.logsigmoid(log_offset - negative) * mask).sum(-1)


@LOSSES.register_module()
class RelationContrastLoss(DistillLoss):
    """Pulls v^{t,s}(a, i), the relation of the teacher's anchor a to the student's image i, to v^t(a, i), that of the teacher's
    a to the teacher's i, and away from v^t(a, k) of other images k. Averaged over the pairs of an anchor and an image i != a.

    Anchors lie evenly over the batch of all processes. Negatives k != a are of another class than i, or other images. The queue
    takes the batch after scoring; until it is full, the filled part serves. All processes have the same anchors and queue.

    Args:
        relation: form of Eq. 1. 'direction': l2(t_k - t_a) against l2(E s_i - t_a), where t and E s are standardized over
            the batch, and only the linear map E (``student_map``) is learned; negatives come from batch and queue.
            'learned': both F are trained as printed; negatives come from the queue, or from the batch where there is none.
        num_negatives: length of the queue; at least the number of samples in a batch of all processes. 0 or None for no
            queue.
        tau: temperature.
        num_anchors: A, how many images of the batch serve as anchors, None for all. Memory grows as
            A x (batch + queue) x (batch + width of a relation).
        sampling: 'supervised', negatives are of another class; 'unsupervised', of another image.
        normalizer: what turns a score into a probability.
            'softmax': over the positive and its negatives (InfoNCE);
            'batch': Eq. 10 with the constant Z of CRD, m x the mean of exp(s / tau) over the first batch with negatives,
            under exp(s / tau); m cancels; 'none': Eq. 10 as printed.
        dim: width of the learned relations, 128 where it is None.
        center: 'anchor' or None, see :class:`LearnedRelation`. 'auto': 'anchor' for learned relations.
        num_samples: m, the size of the data set, for ``normalizer='none'``.

    Shown in the log: ``score_positive`` and ``score_negative``, the mean cosines.
    """

    def __init__(self, relation: str = 'direction', num_negatives: int | None = 512, tau: float = 0.1,
                 num_anchors: int | None = 16, sampling: str = 'supervised', normalizer: str = 'softmax',
                 dim: int | None = None, center: str | None = 'auto', num_samples: int | None = None):
        super().__init__()
        choices = dict(relation=(relation, ('direction', 'learned')), sampling=(sampling, ('supervised', 'unsupervised')),
                       normalizer=(normalizer, ('softmax', 'batch', 'none')), center=(center, ('anchor', None, 'auto')))
        for name, (value, known) in choices.items():
            if value not in known:
                raise InputError(f'{name} is one of {", ".join(map(repr, known))}, got {value!r}')
        if normalizer == 'none' and not num_samples:
            raise InputError("normalizer='none' needs num_samples, the number of training images")
        if relation == 'direction' and (dim is not None or center == 'anchor'):
            raise InputError("dim and center are settings of relation='learned', not of relation='direction'")
        check_positive(tau=tau)
        whole = dict(num_negatives=num_negatives or None, num_anchors=num_anchors, dim=dim, num_samples=num_samples)
        check_positive(whole=True, **{name: value for name, value in whole.items() if value is not None})
        self.relation, self.tau, self.num_anchors, self.num_negatives = relation, tau, num_anchors, num_negatives or 0
        self.sampling, self.normalizer, self.num_samples = sampling, normalizer, num_samples
        self.dim, self.center = dim or 128, 'anchor' if center == 'auto' else center
        self.contrast = contrast
        self.register_buffer('log_mean', torch.zeros(()) - torch.inf)        # log of the mean of exp(s / tau)

    def build(self, student: NetworkOutput, teacher: NetworkOutput) -> None:
        """Makes E or both F, and the queue, for the widths of the two embeddings."""
        width_t, width_s = teacher.embedding.shape[1], student.embedding.shape[1]
        if self.relation == 'direction':
            self.student_map = nn.Linear(width_s, width_t)
            self.relation_t = self.relation_ts = Direction()
        else:
            self.relation_t = LearnedRelation(width_t, width_t, self.dim, self.center)
            self.relation_ts = LearnedRelation(width_t, width_s, self.dim, self.center)
        self.queue = EmbeddingQueue(self.num_negatives, width_t)

    def check_batch(self, size: int) -> None:
        """Raises InputError where a batch of ``size`` samples, of all processes together, does not fit the queue."""
        if 0 < self.num_negatives < size:
            raise InputError(f'the queue holds num_negatives={self.num_negatives} samples, fewer than the batch of {size}')

    def compile(self, **options) -> None:
        """Compiles relations and contrast. Not the queue: torch.compile (2.14) keeps it for the backward pass as it is
        after the batch went in, and so returns wrong gradients once the size of the batch has changed.
        """
        self.relation_t.compile(**options)
        self.relation_ts.compile(**options)
        self.contrast = torch.compile(contrast, **options)

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """The loss of the pairs of every anchor with this process's images, times the number of processes."""
        e_t, e_s, keys = self.gather(student, teacher, batch)
        if self.relation == 'direction':
            e_t, e_s = standardize(e_t), standardize(self.student_map(e_s))
        size, world, place = len(e_t), dist.get_world_size(), torch.arange(len(e_t) + self.num_negatives, device=keys.device)
        own = slice(size // world * dist.get_rank(), size // world * (dist.get_rank() + 1))
        number = min(self.num_anchors or size, size)
        at = place[:number] * size // number                             # anchors, evenly over the batch of all processes
        # Of batch and queue, from here on are negatives: the learned form contrasts with its queue, where it has one.
        first = 0 if self.relation == 'direction' or not self.num_negatives else size
        others, other_keys = torch.cat([e_t, self.queue.embedding]), torch.cat([keys, self.queue.key])[first:]
        usable = torch.cat([place[:size] >= 0, self.queue.filled])[first:]
        valid = at[:, None] != place[own]
        mask = (usable & (keys[own, None] != other_keys)) & (at[:, None] != place[first:])[:, None] & valid[..., None]

        v_t = self.relation_t(e_t[at], others)                           # Eq. 1, F^t, and h_1 of Eq. 10
        v_ts = self.relation_ts(e_t[at], e_s)[:, own]                    # Eq. 1, F^{t,s}, and h_2
        positive, negative = (v_t[:, own] * v_ts).sum(-1), v_ts @ v_t[:, first:].mT
        loss = self.contrast(positive, negative, mask, self.tau, self.log_offset(negative, mask, usable))      # Eq. 10, 11

        if self.num_negatives:
            self.queue.push(e_t, keys)
        with torch.no_grad():
            self.log_vars = dict(score_positive=(positive * valid).sum() / valid.sum().clamp(min=1),
                                 score_negative=(negative * mask).sum() / mask.sum().clamp(min=1))
        return (loss * valid).sum() * world / max(number * (size - 1), 1)

    def gather(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Teacher's and student's embeddings and the keys (labels or positions) of the batch of all processes."""
        keys = batch.labels if self.sampling == 'supervised' else batch.index
        if keys is None:
            raise InputError("sampling='unsupervised' needs the images' positions: sample_idx in the pipeline's meta_keys")
        e_t, e_s = (x.embedding.to(self.log_mean.dtype) for x in (teacher, student))
        if dist.get_world_size() > 1:                                    # the student's with its gradient
            e_s = torch.cat(all_gather_with_gradient(e_s.contiguous()))
        e_t, keys = torch.cat(dist.all_gather(e_t.detach())), torch.cat(dist.all_gather(keys))
        self.check_batch(len(e_t))
        return e_t, e_s, keys

    @torch.no_grad()
    def log_offset(self, negative: Tensor, mask: Tensor, usable: Tensor) -> Tensor | None:
        """log(n / m) of Eq. 10, or log(n Z / m), where n counts the images that serve as negatives now."""
        if self.normalizer == 'softmax':
            return None
        log_n = usable.sum().clamp(min=1).to(negative.dtype).log()
        if self.normalizer == 'none':
            return log_n - math.log(self.num_samples)
        sums = torch.stack([((negative / self.tau).exp() * mask).sum(), mask.sum()])
        dist.all_reduce(sums)
        new = self.log_mean.isinf() & (sums[1] > 0)                      # Z is set once
        self.log_mean.copy_(torch.where(new, (sums[0] / sums[1].clamp(min=1)).log(), self.log_mean))
        return log_n + self.log_mean.nan_to_num(neginf=0)
