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
from .fused import L2, SoftmaxContrast

CLOSED = -1e30                                           # is added to scores that do not count; finite, as all may be closed


def standardize(x: Tensor) -> Tensor:
    """Batch normalization without weights: each column of (B, D) with mean 0 and variance 1."""
    return (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()


class Direction(nn.Module):
    """l2(y - x): Eq. 1 with phi_i = phi_j = [I; -I] and phi = [-I, I], and the identity as h."""

    def forward(self, anchors: Tensor, others: Tensor, there: Tensor | None = None) -> Tensor:
        """From each of A anchors to each of N others, all of D numbers. Gives (A, N, D)."""
        vectors = others - anchors[:, None]
        return F.normalize(vectors, dim=-1, out=None if vectors.requires_grad else vectors)


class LearnedRelation(nn.Module):
    """l2 of h F, with F = phi ReLU(phi_i x - phi_j y): Eq. 1 and the line above it. The linear map h is h_1 or h_2 of Eq. 10.

    ``center='anchor'`` subtracts, before l2, the mean over an anchor's relations; else F and h can shift all its scores.
    """

    def __init__(self, width_x: int, width_y: int, dim: int, center: str | None):
        super().__init__()
        self.phi_i, self.phi_j = nn.Linear(width_x, dim), nn.Linear(width_y, dim)
        self.phi, self.h, self.center = nn.Linear(dim, dim), nn.Linear(dim, dim), center

    def forward(self, anchors: Tensor, others: Tensor, there: Tensor | None = None) -> Tensor:
        """Of each of A anchors and each of N others. Gives (A, N, dim). ``there`` (N,): those of which the mean is taken."""
        relu = F.relu(self.phi_i(anchors)[:, None] + -self.phi_j(others), inplace=True)
        weight, bias = self.h.weight @ self.phi.weight, self.h(self.phi.bias)        # h and phi as one map
        if self.center is None:
            return L2.apply(F.linear(relu, weight, bias))
        there = relu.new_ones(relu.shape[1]) if there is None else there.to(relu.dtype)
        mean = (there / there.sum() @ relu)[:, None]                                 # mapped as one row; it takes bias away
        return L2.apply(F.linear(relu, weight) - (F.linear(mean, weight, bias) - bias))


def contrast(scores: Tensor, own: Tensor, log_offset: Tensor | None) -> Tensor:
    """Eq. 11 of each pair of an anchor and an image, from its N scores over tau: (A, B, N) -> A x B. Without the second n.

    ``own`` (B,) is the k that is i; the others are negatives. ``log_offset`` is the log of what Eq. 10 adds in its denominator,
    so that h = sigmoid(score - log_offset). None for a softmax over the positive and its negatives.
    """
    positive = scores.gather(-1, own.expand(scores.shape[:2])[..., None]).squeeze(-1)
    if log_offset is None:
        return scores.logsumexp(-1) - positive
    negatives = F.logsigmoid(log_offset - scores).sum(-1) - F.logsigmoid(log_offset - positive)
    return -F.logsigmoid(positive - log_offset) - negatives


@LOSSES.register_module()
class RelationContrastLoss(DistillLoss):
    """Pulls v^{t,s}, the relation of the teacher's anchor a and the student's image i, to v^t of a and the teacher's i.

    Relations v^t of a with other images k are pushed away. Mean over the pairs of an anchor and an image i != a. Anchors lie
    evenly over the batch of all processes. The queue takes the batch after scoring; its filled part serves.

    Args:
        relation: form of Eq. 1. 'direction': l2 of t_k - t_a and of E s_i - t_a, with t and E s standardized over the batch.
            Only the linear map E (``student_map``) learns. Negatives come from batch and queue. 'learned': F^t and F^{t,s} as
            printed, both trained. Negatives come from the queue, and from the batch until it is full or if there is none.
        num_negatives, tau: length of the queue, at least a batch of all processes (0 or None: no queue); temperature.
        num_anchors: A, None for the whole batch. Memory grows as A x (batch + queue) x (batch + width of a relation).
        sampling: 'supervised': negatives are of another class. 'unsupervised': any other image. Never the anchor.
        normalizer: 'softmax' over the positive and its negatives (InfoNCE). 'none': Eq. 10 as printed; n counts batch and queue
            where they serve. 'batch': exp(s / tau) / Z in Eq. 10. As in CRD Z is m x its first mean; m cancels.
        dim, center: of learned relations. The width, None: 128. 'anchor' (also 'auto') or None, see :class:`LearnedRelation`.
        num_samples: m, the number of training images, for ``normalizer='none'``.

    In the log: ``score_positive`` and ``score_negative``, mean cosines of one anchor's pairs; ``negatives``: n.

    Example:
        >>> student, teacher = (NetworkOutput((), torch.randn(8, width), None) for width in (16, 64))
        >>> loss = RelationContrastLoss(num_negatives=64); loss.build(student, teacher)
        >>> loss(student, teacher, Batch(torch.arange(8) % 2, torch.arange(8))).shape
        torch.Size([])
    """

    def __init__(self, relation: str = 'direction', num_negatives: int | None = 512, tau: float = 0.1,
                 num_anchors: int | None = 16, sampling: str = 'supervised', normalizer: str = 'softmax',
                 dim: int | None = None, center: str | None = 'auto', num_samples: int | None = None):
        super().__init__()
        for name, value, *known in (('relation', relation, 'direction', 'learned'), ('center', center, 'anchor', None, 'auto'),
                 ('normalizer', normalizer, 'softmax', 'batch', 'none'), ('sampling', sampling, 'supervised', 'unsupervised')):
            if value not in known:
                raise InputError(f'{name} is one of {tuple(known)}, got {value!r}')
        if normalizer == 'none' and not num_samples:
            raise InputError("normalizer='none' needs num_samples, the number of training images")
        if relation == 'direction' and (dim is not None or center == 'anchor'):
            raise InputError("dim and center are settings of relation='learned', not of 'direction'")
        check_positive(tau=tau)
        whole = dict(num_negatives=num_negatives or None, num_anchors=num_anchors, dim=dim, num_samples=num_samples)
        check_positive(whole=True, **{name: value for name, value in whole.items() if value is not None})
        self.relation, self.sampling, self.without_labels = relation, sampling, "sampling='unsupervised'"
        self.needs_labels, self.needs_positions = sampling == 'supervised', sampling == 'unsupervised'
        self.num_negatives, self.num_anchors, self.num_samples = num_negatives or 0, num_anchors, num_samples
        self.normalizer, self.tau, self.dim, self.center = normalizer, tau, dim or 128, 'anchor' if center == 'auto' else center
        self.register_buffer('log_mean', torch.tensor(-torch.inf))           # log of Z / m

    def build(self, student: NetworkOutput, teacher: NetworkOutput) -> None:
        """Makes E or both F for the widths of the embeddings, and the queue."""
        width_t, width_s = teacher.embedding.shape[1], student.embedding.shape[1]
        if self.relation == 'direction':
            self.student_map, self.relation_t, self.relation_ts = nn.Linear(width_s, width_t), Direction(), Direction()
        else:
            self.relation_t, self.relation_ts = (LearnedRelation(width_t, y, self.dim, self.center) for y in (width_t, width_s))
        self.queue = EmbeddingQueue(self.num_negatives, width_t)

    def check_batch(self, size: int) -> None:
        """Raises InputError where a batch of ``size`` samples, of all processes together, does not fit the queue."""
        if 0 < self.num_negatives < size:
            raise InputError(f'the queue holds num_negatives={self.num_negatives} samples, fewer than the batch of {size}')

    def compile(self, **options) -> None:
        """Compiles the relations. Not the queue: torch.compile (2.14) would give the backward pass what it holds later."""
        self.relation_t.compile(**options), self.relation_ts.compile(**options)

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """The loss of the pairs of each anchor with this process's images, times the number of processes."""
        e_t, e_s, keys = self.gather(student, teacher, batch)
        if self.relation == 'direction':
            e_t, e_s = standardize(e_t), standardize(self.student_map(e_s))
        size, world, rank = len(e_t), dist.get_world_size(), dist.get_rank()
        number, places = min(self.num_anchors or size, size), torch.arange(size, device=keys.device)
        at, own = places[:number] * size // number, places.chunk(world)[rank]        # of anchors, evenly; of its own images
        there = torch.cat([places >= 0, self.queue.filled])                          # of batch and queue, from here on
        closed, n = self.closed(at, own, keys, there)
        self.log_vars['negatives'] = n.to(e_t.dtype)
        v_t = self.relation_t(e_t[at], torch.cat([e_t, self.queue.embedding]), there)    # Eq. 1, F^t, and h_1 of Eq. 10
        v_ts = self.relation_ts(e_t[at], e_s).chunk(world, 1)[rank] / self.tau       # Eq. 1, F^{t,s}, and h_2
        self.watch(torch.addmm(closed[0], v_ts[0], v_t[0].mT), own)
        if self.normalizer == 'softmax':
            loss = SoftmaxContrast.apply(v_t, v_ts, closed, own)                     # the two lines below, in less time
        else:
            scores = torch.baddbmm(closed, v_ts, v_t.mT)                             # Eq. 10
            loss = contrast(scores, own, self.log_offset(scores, own, at, n))        # Eq. 11
        if self.num_negatives:
            self.queue.push(e_t, keys)
        return torch.where(at[:, None] != own, loss, 0).sum() * world / max(number * (size - 1), 1)

    def gather(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings of teacher and student, and keys (labels or positions), of the batch of all processes."""
        keys = batch.labels if self.sampling == 'supervised' else batch.index
        if keys is None:
            raise InputError("sampling='unsupervised' needs the images' positions: sample_idx in the pipeline's meta_keys")
        e_t, e_s = (x.embedding.to(self.log_mean.dtype) for x in (teacher, student))
        if dist.get_world_size() > 1:
            e_s = torch.cat(all_gather_with_gradient(e_s.contiguous()))
        e_t, keys = torch.cat(dist.all_gather(e_t.detach())), torch.cat(dist.all_gather(keys))
        self.check_batch(len(e_t))
        return e_t, e_s, keys

    def closed(self, at: Tensor, own: Tensor, keys: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """(A, b, N) CLOSED where image k is neither i nor a negative of its pair, else 0; and n, how many images may serve."""
        place = torch.arange(len(there), device=keys.device)
        batch_too = self.relation == 'direction' or not self.num_negatives or ~self.queue.full
        serves = there & (batch_too | (place >= len(keys)))
        open_i = serves & (keys[own, None] != torch.cat([keys, self.queue.key])) | (place == own[:, None])
        closed_i, closed_a = ((~x).to(self.log_mean.dtype) * CLOSED for x in (open_i, place != at[:, None]))
        return closed_i + closed_a[:, None], serves.sum()

    @torch.no_grad()
    def log_offset(self, scores: Tensor, own: Tensor, at: Tensor, n: Tensor) -> Tensor:
        """log(n / m) of Eq. 10. With Z it is log(n Z / m). Z / m is set here where it is not yet."""
        log_n = n.clamp(min=1).to(scores.dtype).log()
        if self.normalizer == 'none':
            return log_n - math.log(self.num_samples)
        negative = scores.scatter(-1, own.expand(scores.shape[:2])[..., None], CLOSED)
        counted = (negative > CLOSED / 2) & (at[:, None] != own)[..., None]
        sums = torch.stack([(negative.exp() * counted).sum(), counted.sum()])
        dist.all_reduce(sums)
        self.log_mean.copy_(torch.where(self.log_mean.isinf() & (sums[1] > 0), (sums[0] / sums[1]).log(), self.log_mean))
        return log_n + self.log_mean.nan_to_num(neginf=0)

    @torch.no_grad()
    def watch(self, scores: Tensor, own: Tensor) -> None:
        """The mean cosines for the log, from the scores (b, N) of the first anchor, which is the first of all images."""
        is_own = own[:, None] == torch.arange(scores.shape[1], device=own.device)
        for name, counted in (('positive', is_own), ('negative', ~is_own)):
            counted = counted & (scores > CLOSED / 2) & (own[:, None] > 0)
            self.log_vars[f'score_{name}'] = self.tau * torch.where(counted, scores, 0).sum() / counted.sum().clamp(min=1)
