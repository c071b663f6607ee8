"""Contrastive representation distillation (Tian et al., ICLR 2020, https://arxiv.org/abs/1910.10699)."""
import torch
from mmengine import dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mmcrrcd.errors import check_positive
from mmcrrcd.models.memory import MemoryBank
from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import DistillLoss


def nce_loss(scores: Tensor, z: Tensor | float, temperature: float, num_samples: int) -> Tensor:
    """Eq. 18: -log h of the positive - the sum over K negatives of log(1 - h), averaged over the leading dimensions.

    h = P / (P + K / N). P = exp(score / T) / Z. ``scores`` (..., 1 + K), the positive first -> scalar. The published code adds
    1e-7 to the denominator; in logarithms nothing has to be guarded.
    """
    k = scores.shape[-1] - 1
    logit = scores / temperature - torch.log(torch.as_tensor(z) * k / num_samples)         # of h
    # softplus goes over to the identity at its threshold; from 50 on that is exact.
    loss = F.softplus(-logit[..., 0], threshold=50) + F.softplus(logit[..., 1:], threshold=50).sum(-1)
    return loss.mean()


def first_z(scores: Tensor, temperature: float, num_samples: int) -> Tensor:
    """Z = N x the mean of exp(score / T), over the first batch of all processes. Scalar."""
    z = num_samples * (scores.detach() / temperature).exp().mean()
    dist.all_reduce(z, 'mean')
    return z


def scores_of_rows(features: Tensor, bank: Tensor, index: Tensor) -> Tensor:
    """Inner products of ``features`` (b, d) with their rows of ``bank`` (N, d), by a copy of these rows.

    ``index`` (b, 1 + K) -> (b, 1 + K). Keeps b x (1 + K) x d numbers for the backward pass.
    """
    return (bank[index] @ features[:, :, None]).squeeze(-1)


class ScoresOfBank(torch.autograd.Function):
    """The same, by the products with all rows, of which those of ``index`` are taken. Keeps N x d; b x N comes and goes.

    (gather's own backward pass would keep the b x N products, of which it needs the shape.)
    """

    @staticmethod
    def forward(ctx, features: Tensor, bank: Tensor, index: Tensor) -> Tensor:
        """Products of features (B, D) with the K entries of a bank that ``index`` names for each. Gives (B, K)."""
        # A copy: the bank moves on before the backward pass.
        ctx.save_for_backward(bank.clone(), index)
        return (features @ bank.T).gather(1, index)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        """The gradient of the features; the bank has none."""
        bank, index = ctx.saved_tensors
        products = gradient.new_zeros(len(gradient), len(bank)).scatter_add_(1, index, gradient)
        return products @ bank, None, None


def bank_scores(features: Tensor, bank: Tensor, index: Tensor) -> Tensor:
    """The form of the two that needs less memory: the second with K b = 21 N, as on CIFAR-100, the first with few negatives."""
    rows, everything = index.numel() * bank.shape[1], bank.numel() + len(features) * len(bank)
    return scores_of_rows(features, bank, index) if rows < everything else ScoresOfBank.apply(features, bank, index)


class MemoryContrast(nn.Module):
    """Pulls projections of student and teacher to each other's bank at their own image, and away at others'.

    Args:
        num_samples: N, the number of training images.
        dim: width of the learned projections.
        num_negatives: K.
        temperature: T.
        momentum: of the banks.

    ``z`` are the constants of both directions, student against the teacher's bank first; zero until the first batch.
    """

    def __init__(self, num_samples: int, dim: int, num_negatives: int, temperature: float, momentum: float):
        super().__init__()
        check_positive(temperature=temperature)
        check_positive(whole=True, num_samples=num_samples, dim=dim, num_negatives=num_negatives)
        self.num_samples, self.dim = num_samples, dim
        self.num_negatives, self.temperature = num_negatives, temperature
        self.bank = MemoryBank(num_samples, dim, momentum)
        self.register_buffer('z', torch.zeros(2))
        self._z_known = False

    def build(self, width_s: int, width_t: int) -> None:
        """Make the projections."""
        self.project_s, self.project_t = nn.Linear(width_s, self.dim), nn.Linear(width_t, self.dim)

    def forward(self, x_s: Tensor, x_t: Tensor, batch: Batch) -> Tensor:
        """Features of both networks for the samples of ``batch``, b x width_s and b x width_t -> scalar."""
        index = self.bank.draw(batch, self.num_negatives)
        return self.contrast(F.normalize(self.project_s(x_s)), F.normalize(self.project_t(x_t)), index)

    def contrast(self, s: Tensor, t: Tensor, index: Tensor) -> Tensor:
        """Loss of unit features (b, dim) at the rows ``index`` (b, 1 + K), the sample's own first; then the bank takes them."""
        scores = self.scores(s, self.bank.teacher, index), self.scores(t, self.bank.student, index)
        if not self._z_known:
            self._z_known = True
            if not self.z.any():                         # not from a checkpoint
                self.z.copy_(torch.stack([first_z(x, self.temperature, self.num_samples) for x in scores]))
        self.bank.update(index[:, 0].contiguous(), s, t)
        return sum(nce_loss(x, z, self.temperature, self.num_samples) for x, z in zip(scores, self.z))

    def scores(self, features: Tensor, bank: Tensor, index: Tensor) -> Tensor:
        """Those of a bank, (B, K)."""
        return bank_scores(features, bank, index)


@LOSSES.register_module()
class CRDLoss(DistillLoss):
    """:func:`nce_loss` of the projected embeddings against the banks of the other network, both directions added.

    Gradients go through the batch's own embeddings only. With several processes the banks are the same in each.

    Args:
        num_samples: N, the number of training images; another is refused before training.
        dim, num_negatives, temperature, momentum: see :class:`MemoryContrast`. Negatives are drawn with replacement from
            the other classes (see :meth:`MemoryBank.draw`); the published sampler draws without.
    """

    needs_labels = True

    def __init__(self, num_samples: int, dim: int = 128, num_negatives: int = 16384, temperature: float = 0.07,
                 momentum: float = 0.5):
        super().__init__()
        self.num_samples = num_samples
        self.contrast = MemoryContrast(num_samples, dim, num_negatives, temperature, momentum)

    def build(self, student: NetworkOutput, teacher: NetworkOutput) -> None:
        """Makes banks and maps for the widths of the embeddings."""
        self.contrast.build(student.embedding.shape[1], teacher.embedding.shape[1])

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """The contrast in both directions, a scalar."""
        return self.contrast(student.embedding, teacher.embedding, batch)
