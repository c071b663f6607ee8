"""Evolutionary knowledge distillation (EKD): the teacher is no finished network, it learns while it teaches."""
from mmpretrain.models import ImageClassifier
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map_only

from mmcrrcd.errors import InputError
from mmcrrcd.models.classification import check_head, classification_loss
from mmcrrcd.models.losses.base import DistillLoss
from mmcrrcd.models.losses.stages import at_least_float32, pair_stages, same_size
from mmcrrcd.models.networks import extract
from mmcrrcd.registry import ALGORITHMS, MODELS
from mmcrrcd.structures import Batch, NetworkOutput

from .distiller import Distiller
from .objective import check_names
from .schedule import Schedule


class GuidedLoss(DistillLoss):
    """Mean squared error between the teacher's feature maps and the student's through a guided module, summed over the stages.

    A guided module is a 1x1 convolution to the teacher's channels and a batch norm. The larger of two feature maps is averaged
    to the size of the smaller.
    """

    needs = frozenset({'feature_maps'})

    def build(self, student: NetworkOutput, teacher: NetworkOutput) -> None:
        """Pair the stages and make the guided modules."""
        self.pairs = pair_stages(student, teacher)
        self.guided = nn.ModuleList()
        for i, j in self.pairs:
            here, there = student.feature_maps[i].shape[1], teacher.feature_maps[j].shape[1]
            self.guided.append(nn.Sequential(nn.Conv2d(here, there, 1, bias=False), nn.BatchNorm2d(there)))

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """Mean squared error of guided feature maps, summed over the stages."""
        total = 0
        for (i, j), module in zip(self.pairs, self.guided, strict=True):
            guided = module(at_least_float32(student.feature_maps[i]))
            total = total + F.mse_loss(*same_size(guided, at_least_float32(teacher.feature_maps[j])))
        return total


@ALGORITHMS.register_module()
class EKD(Distiller):
    """After Zhang et al., Student Network Learning via Evolutionary Knowledge Distillation, TCSVT 2022
    (https://arxiv.org/abs/2103.13811).

    From the paper's abstract: the teacher is not pretrained and fixed, it learns online. It supervises the student with
    intermediate knowledge all along. Between corresponding blocks of the two stand several simple guided modules. The paper's
    equations were not at hand. So guided module, distance and weight are choices of this package, see :class:`GuidedLoss`. So
    is that the teacher learns from its own classification loss only. The student learns from the teacher's logits where
    ``objective`` says so.

    The total is the student's and the teacher's classification losses + beta x the guided loss. The teacher is trained and
    saved with the student (``teacher.*`` in checkpoints), on the high-resolution images; the exported student is without it.

    Args:
        beta: weight of the guided loss, a number or a schedule.
        objective: further losses, such as a :class:`KDLoss` for the teacher's logits.
        teacher: config of an mmpretrain classifier whose feature maps are seen. There is no ``teacher_checkpoint``.
        student, ...: see :class:`Distiller`.

    Shown in the log: ``accuracy_teacher``, in percent.
    """

    can_use_cache = False
    own_parts = Distiller.own_parts | {'guided', 'teacher'}

    def __init__(self, student: dict, teacher: dict, beta: Schedule = 1.0, objective: dict[str, dict] | None = None, **kwargs):
        if kwargs.get('teacher_checkpoint') is not None:
            raise InputError('the teacher of EKD learns along with the student, from the start: leave teacher_checkpoint out')
        check_names(objective, self.own_parts, 'EKD')
        guided = dict(type=GuidedLoss, weight=beta)
        teacher = MODELS.build(teacher) if isinstance(teacher, dict) else teacher
        parameters = () if teacher is None else teacher.parameters()
        learning = [parameter for parameter in parameters if parameter.requires_grad]            # what is frozen stays so
        super().__init__(student, teacher, objective={'guided': guided, **(objective or {})}, **kwargs)
        if not isinstance(self.teacher, ImageClassifier):
            raise InputError(f'the teacher of EKD is an ImageClassifier of mmpretrain, got a {type(self.teacher).__name__}')
        check_head(self.teacher.head, self.mixes)
        # From here on a module like the student, so it is trained, saved and reduced over processes.
        self.teacher = self.teacher.train()
        for parameter in learning:
            parameter.requires_grad_()
        self._teacher_is_ready = True

    def forward_teacher(self, images: Tensor) -> NetworkOutput:
        """What the teacher says of the high-resolution images (N, 3, H, W), with gradients."""
        return extract(self.teacher, images)

    def compute_losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        """Those of the distiller, and the teacher's own classification loss."""
        parts = super().compute_losses(student, tree_map_only(Tensor, Tensor.detach, teacher), batch)
        parts['loss_teacher'] = classification_loss(self.teacher, teacher, batch.target)
        if batch.labels is not None:
            parts['accuracy_teacher'] = 100 * (teacher.logits.argmax(1) == batch.labels).float().mean()
        return parts

    def trains_in(self, epoch: int) -> bool:
        """The teacher learns in every epoch."""
        return True
