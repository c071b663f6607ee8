"""Knowledge distillation meets self-supervision (SSKD): what the teacher makes of turned images is taught, too."""
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map_only

from mmcrrcd.errors import InputError, check_positive
from mmcrrcd.models.losses.base import DistillLoss
from mmcrrcd.models.losses.kd import KDLoss
from mmcrrcd.registry import ALGORITHMS
from mmcrrcd.structures import Batch, Pair, NetworkOutput

from .distiller import Distiller
from .objective import check_names
from .schedule import Schedule, value_at

TURNS = 4


def rotations(images: Tensor) -> Tensor:
    """All images (N, C, S, S) as they are, then all turned by 90, by 180, by 270 degrees: 4N in all."""
    height, width = images.shape[2:]
    if height != width:
        raise InputError(f'SSKD turns images by 90 degrees, so they must be square, got {height} x {width} pixels')
    turned = torch.cat([images.rot90(turn, (2, 3)) for turn in range(TURNS)])
    return turned.contiguous(memory_format=torch.channels_last)


def upright(output: NetworkOutput) -> NetworkOutput:
    """The part of an output of :func:`rotations` that is of the images as they are."""
    n = len(output.logits) // TURNS
    return tree_map_only(Tensor, lambda x: x[:n], output)


def similarities(projected: Tensor) -> Tensor:
    """Embeddings (4N, D) -> cosine of each of the 3N turned images with each of the N upright ones."""
    unit = F.normalize(projected, dim=1)
    n = len(unit) // TURNS
    return unit[n:] @ unit[:n].T


def kept(scores: Tensor, answers: Tensor, ratio: float) -> Tensor:
    """Which of the teacher's M rows of scores teach: all that rank the answer first, and a share of the others.

    The share ``ratio`` of the wrong ones, rounded down, is those that rank the answer highest. (M,) bool.
    """
    rank = (scores > scores.gather(1, answers[:, None])).sum(1)
    wrong = (rank > 0).sum()
    number = len(rank) - wrong + (ratio * wrong.double()).floor()
    place = rank.argsort(stable=True).argsort()
    return place < number


def selective_kd(student: Tensor, teacher: Tensor, answers: Tensor, temperature: float, ratio: float) -> Tensor:
    """T^2 KL(softmax(teacher / T) || softmax(student / T)) averaged over the rows that :func:`kept` selects.

    Scores of M rows, (M, classes), and as many answers -> scalar.
    """
    keep = kept(teacher, answers, ratio)
    log_student = F.log_softmax(student / temperature, dim=1)
    log_teacher = F.log_softmax(teacher / temperature, dim=1)
    divergence = F.kl_div(log_student, log_teacher, reduction='none', log_target=True).sum(1)
    return temperature**2 * (divergence * keep).sum() / keep.sum().clamp(min=1)


class TransformedLoss(DistillLoss):
    """Knowledge distillation on the turned images, where the teacher knows enough of them."""

    needs = frozenset({'logits'})
    needs_labels = True

    def __init__(self, temperature: float, ratio: float):
        super().__init__()
        self.temperature, self.ratio = temperature, ratio

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """Outputs of :func:`rotations`."""
        n, answers = len(batch.labels), batch.labels.repeat(TURNS - 1)
        return selective_kd(student.logits[n:], teacher.logits[n:], answers, self.temperature, self.ratio)


class ContrastLoss(DistillLoss):
    """The student's similarities of turned with upright images follow the teacher's; both through a two-layer head."""

    def __init__(self, temperature: float, ratio: float):
        super().__init__()
        self.temperature, self.ratio = temperature, ratio

    def build(self, student: NetworkOutput, teacher: NetworkOutput) -> None:
        """Makes the two heads for the widths of the embeddings."""
        def head(width: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, width))

        self.student_head, self.teacher_head = (head(output.embedding.shape[1]) for output in (student, teacher))

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """Outputs of :func:`rotations`; the teacher's head learns nothing here."""
        with torch.no_grad():
            of_teacher = similarities(self.teacher_head(teacher.embedding))
        of_student = similarities(self.student_head(student.embedding))
        return selective_kd(of_student, of_teacher, self.answers(of_teacher), self.temperature, self.ratio)

    def pretext(self, teacher: NetworkOutput) -> tuple[Tensor, Tensor]:
        """What trains the teacher's head, to find the upright image of a turned one: loss, and accuracy in percent."""
        scores = similarities(self.teacher_head(teacher.embedding))
        answers = self.answers(scores)
        return F.cross_entropy(scores, answers), 100 * (scores.argmax(1) == answers).float().mean()

    @staticmethod
    def answers(scores: Tensor) -> Tensor:
        """The right answers: each turned image belongs to its own upright one."""
        return torch.arange(scores.shape[1], device=scores.device).repeat(TURNS - 1)


@ALGORITHMS.register_module()
class SSKD(Distiller):
    """Xu et al., Knowledge Distillation Meets Self-Supervision, ECCV 2020 (https://arxiv.org/abs/2006.07114).

    Losses, constants and stages are those of the published code (github.com/xuguodong03/SSKD, student.py and wrapper.py). First
    the frozen teacher gets a head that tells which upright image a turned one comes from. Then the student learns
    classification and KD on upright images, KD on turned ones, and the head's similarities. The published code crops each
    turned image anew and optimizes the two stages apart. Here the turns are of one crop, at both resolutions alike. The two
    stages are epochs of one training, whose learning rate the config sets. It has 60 + 240 epochs in the published recipe, 0.05
    in both, x0.1 after epochs 30 and 45 of the first stage and 150, 180 and 210 of the second.

    Args:
        head_epochs: length of the first stage, in which the student is not even asked.
        cls_weight, alpha, transformed, contrast: weights of the classification loss, of KD on upright and on turned images,
            and of the similarities. A number counts from the end of the first stage on; a schedule is taken as it is. So are
            the weights in ``objective``.
        temperature: of both KD losses.
        transformed_ratio: share of the turned images that the teacher takes for another class which teach nevertheless.
        contrast_temperature, contrast_ratio: the same for the similarities.
        objective: further losses, on the upright images.
        student, teacher, teacher_checkpoint, ...: see :class:`Distiller`.

    Several processes compare the images of their own share of the batch. Their DDP must look for unused parameters.

    Shown in the log during the first stage: ``accuracy_head``, in percent.
    """

    can_use_cache = False
    own_parts = Distiller.own_parts | {'contrast', 'head', 'kd', 'transformed'}
    staged = True

    def __init__(self, student: dict, teacher: dict, head_epochs: int = 60, cls_weight: Schedule = 0.1, alpha: Schedule = 0.9,
                 transformed: Schedule = 2.7, contrast: Schedule = 10.0, temperature: float = 4.0,
                 transformed_ratio: float = 1.0, contrast_temperature: float = 0.5, contrast_ratio: float = 0.75,
                 objective: dict[str, dict] | None = None, **kwargs):
        if head_epochs < 1:
            raise InputError(f"head_epochs is the length of the stage that trains the teacher's head, at least 1, "
                             f'got {head_epochs}')
        check_positive(temperature=temperature, contrast_temperature=contrast_temperature)
        if not (0 <= transformed_ratio <= 1 and 0 <= contrast_ratio <= 1):
            raise InputError(f'transformed_ratio and contrast_ratio are shares from 0 to 1, got {transformed_ratio}, '
                             f'{contrast_ratio}')

        check_names(objective, self.own_parts, 'SSKD')

        def later(weight: Schedule) -> Schedule:
            return [(0, 0), (head_epochs, 0), (head_epochs, weight)] if isinstance(weight, (int, float)) else weight

        parts = dict(
            kd=dict(type=KDLoss, weight=later(alpha), temperature=temperature),
            transformed=dict(type=TransformedLoss, weight=later(transformed), temperature=temperature, ratio=transformed_ratio),
            contrast=dict(type=ContrastLoss, weight=later(contrast), temperature=contrast_temperature, ratio=contrast_ratio))
        for name, loss in (objective or {}).items():
            parts[name] = {**loss, 'weight': later(loss.get('weight', 1.0))}
        super().__init__(student, teacher, cls_weight=later(cls_weight), objective=parts, **kwargs)
        self.head_weight = [(0, 1), (head_epochs, 1), (head_epochs, 0)]
        self.of_rotations = nn.ModuleDict({name: self.losses.pop(name) for name in ('transformed', 'contrast')})

    def forward(self, inputs: Pair | Tensor, data_samples=None, mode: str = 'tensor'):
        """That of the distiller, in training with each image in four turns."""
        if mode != 'loss':
            return super().forward(inputs, data_samples, mode)
        if not isinstance(inputs, Pair):
            return super().forward(rotations(inputs), data_samples, mode)
        pair = Pair(*map(rotations, inputs))
        if super().trains_in(self.epoch):
            return super().forward(pair, data_samples, mode)
        teacher = self.forward_teacher(pair.high)
        with torch.autocast(pair.high.device.type, enabled=False):
            return self.train_head(teacher)

    def compute_losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        """Outputs of :func:`rotations`, and the batch of the upright images."""
        parts = super().compute_losses(upright(student), upright(teacher), batch)
        for name, loss in self.of_rotations.items():
            parts |= self.part(name, loss, student, teacher, batch)
        return parts | self.train_head(teacher)

    def train_head(self, teacher: NetworkOutput) -> dict[str, Tensor]:
        """The parts of the first stage."""
        if not (weight := value_at(self.head_weight, self.epoch)):
            return {}
        loss, accuracy = self.of_rotations['contrast'].pretext(teacher)
        return dict(loss_head=weight * loss, accuracy_head=accuracy)

    def trains_in(self, epoch: int) -> bool:
        """The first stage trains the teacher's head."""
        return super().trains_in(epoch) or bool(value_at(self.head_weight, epoch))
