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


CLOSED = -1e30                                           # score of what is no negative; finite, as all may be closed


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
        hidden = F.relu(self.phi_i(anchors)[:, None] + -self.phi_j(others), inplace=True)
        return F.normalize(self.transform(hidden), dim=-1)

    def transform(self, hidden: Tensor) -> Tensor:
        """h(phi(hidden)), centered where that is wanted: (A, N, dim) -> (A, N, dim).

        Two linear maps in a row are multiplied into one, and the mean is taken before it, where it costs one map and not N.
        """
        weight, bias = self.h.weight @ self.phi.weight, F.linear(self.phi.bias, self.h.weight, self.h.bias)
        if self.center == 'anchor':
            return F.linear(hidden, weight) - F.linear(hidden.mean(1, keepdim=True), weight)
        return F.linear(hidden, weight, bias)


def contrast(positive: Tensor, negative: Tensor, log_offset: Tensor | None) -> Tensor:
    """Loss of each pair of an anchor a and an image i from its scores over tau, Eq. 10 and 11.

    Args:
        positive: (A, B) of v^{t,s}(a, i) with v^t(a, i).
        negative: (A, B, N) of v^{t,s}(a, i) with v^t(a, k); CLOSED where k is no negative of the pair.
        log_offset: log of what Eq. 10 adds in its denominator, so that h = sigmoid(score - log_offset) and the loss is
            -log h(positive) - sum over k of log(1 - h(negative_k)). None for a softmax over the positive and its negatives.

    Returns:
        (A, B). Eq. 11 multiplies the sum by n again; like CRD this sums over the n negatives once.
    """
    if log_offset is None:
        return torch.logaddexp(positive, negative.logsumexp(-1)) - positive
    return -F.logsigmoid(positive - log_offset) - F.logsigmoid(log_offset - negative).sum(-1)


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
        """The loss of the pairs of each anchor with this process's images, times the number of processes."""
        e_t, e_s, keys = self.gather(student, teacher, batch)
        if self.relation == 'direction':
            e_t, e_s = standardize(e_t), standardize(self.student_map(e_s))
        size, places = len(e_t), torch.arange(len(e_t), device=keys.device)
        own, number = places.view(dist.get_world_size(), -1)[dist.get_rank()], min(self.num_anchors or size, size)
        at = places[:number] * size // number                            # of anchors: evenly over the batch of all processes
        negative, valid, n = self.closed(at, own, keys)

        v_t = self.relation_t(e_t[at], torch.cat([e_t, self.queue.embedding]))       # Eq. 1, F^t, and h_1 of Eq. 10
        v_ts = self.relation_ts(e_t[at], e_s)[:, own] / self.tau                     # Eq. 1, F^{t,s}, and h_2
        positive = (v_t[:, own] * v_ts).sum(-1)
        negative = negative.baddbmm_(v_ts, v_t[:, -negative.shape[-1]:].mT)
        loss = self.contrast(positive, negative, self.log_offset(negative, valid, n))                  # Eq. 10, 11

        self.watch(positive.detach(), negative.detach(), valid)
        if self.num_negatives:
            self.queue.push(e_t, keys)
        return torch.where(valid, loss, 0).sum() * dist.get_world_size() / max(number * (size - 1), 1)

    def gather(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings of teacher and student, and the keys (labels or positions), of the batch of all processes."""
        keys = batch.labels if self.sampling == 'supervised' else batch.index
        if keys is None:
            raise InputError("sampling='unsupervised' needs the images' positions: sample_idx in the pipeline's meta_keys")
        e_t, e_s = (x.embedding.to(self.log_mean.dtype) for x in (teacher, student))
        if dist.get_world_size() > 1:                                    # with gradients: the batch's statistics have them
            e_s = torch.cat(all_gather_with_gradient(e_s.contiguous()))
        e_t, keys = torch.cat(dist.all_gather(e_t.detach())), torch.cat(dist.all_gather(keys))
        self.check_batch(len(e_t))
        return e_t, e_s, keys

    def closed(self, at: Tensor, own: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(A, b, N) CLOSED where image k is no negative of the pair (a, i), else 0; (A, b) bool, is a not i; and n, how many
        images serve as negatives now: those of the batch, but for a learned form with a queue, and the queue's filled part.
        """
        place = torch.arange(len(keys) + self.num_negatives, device=keys.device)
        serves = torch.cat([torch.ones_like(keys, dtype=torch.bool), self.queue.filled])
        differs = keys[own, None] != torch.cat([keys, self.queue.key])
        of_i, of_a = (torch.where(x, 0, self.log_mean.new_tensor(CLOSED)) for x in (serves & differs, place != at[:, None]))
        first = len(keys) if self.relation == 'learned' and self.num_negatives else 0
        return (of_i + of_a[:, None])[..., first:], at[:, None] != own, serves[first:].sum()

    @torch.no_grad()
    def log_offset(self, negative: Tensor, valid: Tensor, n: Tensor) -> Tensor | None:
        """log(n / m) of Eq. 10, or log(n Z / m) with the constant Z of the first batch that has negatives."""
        if self.normalizer == 'softmax':
            return None
        log_n = n.clamp(min=1).to(negative.dtype).log()
        if self.normalizer == 'none':
            return log_n - math.log(self.num_samples)
        sums = torch.stack([(x.sum(-1) * valid).sum() for x in (negative.exp(), (negative > CLOSED / 2).to(negative.dtype))])
        dist.all_reduce(sums)
        unknown = self.log_mean.isinf() & (sums[1] > 0)
        self.log_mean.copy_(torch.where(unknown, (sums[0] / sums[1].clamp(min=1)).log(), self.log_mean))
        return log_n + self.log_mean.nan_to_num(neginf=0)

    def watch(self, positive: Tensor, negative: Tensor, valid: Tensor) -> None:
        """Mean cosines for the log: of all positives, and of one anchor's negatives, which are many enough."""
        for name, scores, counted in (('positive', positive, valid), ('negative', negative[0], negative[0] > CLOSED / 2)):
            mean = torch.where(counted, scores, 0).sum() / counted.sum().clamp(min=1)
            self.log_vars[f'score_{name}'] = self.tau * mean
