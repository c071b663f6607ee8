"""Wasserstein contrastive representation distillation (Chen et al., CVPR 2021, https://arxiv.org/abs/2012.08674)."""
import torch
from mmengine import dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from mmcrrcd.errors import InputError, check_positive
from mmcrrcd.models.memory import EmbeddingQueue
from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import DistillLoss


def dependency(joint: Tensor, independent: Tensor, use: Tensor) -> Tensor:
    """Mean of a critic over pairs of one image less its mean over pairs of any two.

    For the best 1-Lipschitz critic this is a Wasserstein distance, in the dual form of Kantorovich and Rubinstein. It lies
    between the joint distribution of the two networks' features and the product of the two. ``joint`` (b,), ``independent``
    (b, n), of which ``use`` (b, n) tells the pairs that count -> scalar.
    """
    return joint.mean() - (independent * use).sum() / use.sum().clamp(min=1)


@torch.no_grad()
def sinkhorn(cost: Tensor, epsilon: float, iterations: int) -> Tensor:
    """The plan that minimizes <plan, cost> + epsilon sum plan log plan, with uniform weights on both sides.

    Scaling of rows and columns in turn (Cuturi, NeurIPS 2013), in logarithms; columns last, so these are exact. (n, m) ->
    (n, m), which sums to one.
    """
    log_kernel = -cost / epsilon
    rows, columns = cost.new_zeros(len(cost), 1), cost.new_zeros(1, cost.shape[1])
    for _ in range(iterations):
        rows = -(log_kernel + columns).logsumexp(1, keepdim=True)
        columns = -(log_kernel + rows).logsumexp(0, keepdim=True)
    return (log_kernel + rows + columns).exp() / cost.shape[1]


def transport_loss(student: Tensor, teacher: Tensor, epsilon: float, iterations: int) -> Tensor:
    """<plan, cost> with cost 1 - cosine between all pairs of (b, d) and (b, d) -> scalar.

    The plan is a constant for the gradient: that is the gradient of the minimum that :func:`sinkhorn` finds.
    """
    cost = 1 - F.normalize(student) @ F.normalize(teacher).T
    return (sinkhorn(cost, epsilon, iterations) * cost).sum()


class LipschitzCritic(nn.Module):
    """g(t, s) = w ReLU(W [t, s] + c) with W and w of spectral norm 1, so it is 1-Lipschitz in the pair."""

    def __init__(self, width_t: int, width_s: int, dim: int):
        super().__init__()
        self.widths = width_t, width_s
        self.hidden = spectral_norm(nn.Linear(width_t + width_s, dim))
        self.out = spectral_norm(nn.Linear(dim, 1, bias=False))

    def forward(self, t: Tensor, s: Tensor) -> Tensor:
        """All pairs of n teacher's and b student's embeddings. Gives (b, n). Each row is projected once."""
        weight_t, weight_s = self.hidden.weight.split(self.widths, dim=1)
        hidden = F.linear(s, weight_s, self.hidden.bias)[:, None] + F.linear(t, weight_t)
        return self.out(F.relu(hidden, inplace=True)).squeeze(-1)


@LOSSES.register_module()
class WCoRDLoss(DistillLoss):
    """Global: minus :func:`dependency` under a learned critic. Local: :func:`transport_loss` of the batch.

    Embeddings are normalized first. The global part takes pairs of two images from the batch and from a queue of the teacher's
    last embeddings. They are of any class, since the product of the two distributions has all pairs. The local part moves the
    student's embeddings, mapped linearly to the teacher's width, to the teacher's own. With a learned map on that side as well
    both could shrink to a point. With several processes the queue is the same in each. The batch of the global part is that of
    all of them, and that of the local part a process's own.

    The defaults are choices of this package, not the paper's constants.

    Args:
        dim: hidden width of the critic.
        num_negatives: length of the queue; at least the number of samples in a batch of all processes.
        epsilon, iterations: of :func:`sinkhorn`.
        local_weight: of the local part, the global one's being 1.
    """

    def __init__(self, dim: int = 128, num_negatives: int = 512, epsilon: float = 0.1, iterations: int = 20,
                 local_weight: float = 1.0):
        super().__init__()
        check_positive(epsilon=epsilon)
        check_positive(whole=True, dim=dim, num_negatives=num_negatives, iterations=iterations)
        self.dim, self.num_negatives = dim, num_negatives
        self.epsilon, self.iterations, self.local_weight = epsilon, iterations, local_weight

    def build(self, student: NetworkOutput, teacher: NetworkOutput) -> None:
        """Makes critic, map and queue for the widths of the embeddings."""
        width_t, width_s = teacher.embedding.shape[1], student.embedding.shape[1]
        self.critic = LipschitzCritic(width_t, width_s, self.dim)
        self.project = nn.Linear(width_s, width_t)
        self.queue = EmbeddingQueue(self.num_negatives, width_t)

    def check_batch(self, size: int) -> None:
        """Raises InputError where a batch of ``size`` samples, of all processes together, does not fit the queue."""
        if size > self.num_negatives:
            raise InputError(f'the queue holds num_negatives={self.num_negatives} samples, fewer than the batch of {size}')

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """The global contrast and the local transport, a scalar."""
        s, t = F.normalize(student.embedding), F.normalize(teacher.embedding)
        everyone = torch.cat(dist.all_gather(t))
        self.check_batch(len(everyone))
        place = len(s) * dist.get_rank() + torch.arange(len(s), device=s.device)
        values = self.critic(torch.cat([everyone, self.queue.embedding]), s)
        filled = self.queue.filled.expand(len(s), -1)
        use = torch.cat([torch.arange(len(everyone), device=s.device) != place[:, None], filled], dim=1)
        loss = -dependency(values.gather(1, place[:, None])[:, 0], values, use)
        self.queue.push(everyone, place.new_zeros(len(everyone)))                  # of any class, so none is told
        return loss + self.local_weight * transport_loss(self.project(student.embedding), t, self.epsilon, self.iterations)
