"""Center loss (Wen et al., A Discriminative Feature Learning Approach for Deep Face Recognition, ECCV 2016)."""
import torch
from mmengine import dist
from torch import Tensor

from mmcrrcd.errors import InputError
from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import DistillLoss


def center_loss(embedding: Tensor, centers: Tensor) -> Tensor:
    """Eq. 2: half the squared distance of each embedding to the center of its class. Both (N, D) -> scalar.

    The paper's sum over the batch, like its softmax loss, is a mean here; their proportion is the same.
    """
    return (embedding - centers).square().sum(1).mean() / 2


@LOSSES.register_module()
class CenterLoss(DistillLoss):
    """:func:`center_loss` of the student's embeddings; it needs no teacher. The weight in the objective is the paper's lambda.

    The centers, zeros at first, are a buffer, and no gradient reaches them. After each batch, that of all processes, they move
    by Eq. 4. So they are the same in each process. Nothing here waits for the device.

    Args:
        rate: alpha of Eq. 4.
    """

    needs = frozenset()
    needs_teacher = False
    needs_labels = True

    def __init__(self, rate: float = 0.5):
        super().__init__()
        if not 0 < rate <= 1:
            raise InputError(f'the rate of the centers is in (0, 1], got {rate}')
        self.rate = rate

    def build(self, student: NetworkOutput, teacher: NetworkOutput | None) -> None:
        """Make the centers, (classes, D)."""
        self.register_buffer('centers', torch.zeros(student.logits.shape[1], student.embedding.shape[1]))

    def forward(self, student: NetworkOutput, teacher: NetworkOutput | None, batch: Batch) -> Tensor:
        """:func:`center_loss` of the student's embeddings, a scalar; the centers follow in training."""
        loss = center_loss(student.embedding, self.centers[batch.labels])
        self.update(student.embedding, batch.labels)
        return loss

    @torch.no_grad()
    def update(self, embedding: Tensor, labels: Tensor) -> None:
        """Eq. 4: c_j <- c_j - alpha x the sum over the images of class j of (c_j - x_i) / (1 + their number)."""
        embedding, labels = (torch.cat(dist.all_gather(x.detach())) for x in (embedding, labels))
        same = labels[:, None] == labels
        number, total = same.sum(1)[:, None], same.to(embedding.dtype) @ embedding
        centers = self.centers[labels]
        centers = centers - self.rate * (number * centers - total) / (1 + number)
        # The rows of a class are equal up to rounding; the last one counts, so that the order of the writes does not matter.
        last = torch.where(same, torch.arange(len(labels), device=labels.device), -1).amax(1)
        self.centers[labels] = centers[last]
