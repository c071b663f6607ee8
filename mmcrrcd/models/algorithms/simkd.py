"""The teacher's classifier answers for the student, SimKD (Chen et al., CVPR 2022, https://arxiv.org/abs/2203.14001)."""
import torch
from mmpretrain.models import LinearClsHead
from torch import Tensor, nn
from torch.nn import functional as F

from mmcrrcd.errors import InputError
from mmcrrcd.models.losses.base import MapLoss
from mmcrrcd.models.networks import linear_classifier
from mmcrrcd.registry import ALGORITHMS
from mmcrrcd.structures import Batch, NetworkOutput

from .distiller import Distiller
from .objective import check_names
from .schedule import Schedule


class MappedEmbeddingLoss(MapLoss):
    """Mean squared error between the teacher's embedding and a learned linear map of the student's: the paper's only loss."""

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """Scalar; reads the embeddings."""
        return F.mse_loss(self.map(student.embedding), teacher.embedding)


@ALGORITHMS.register_module()
class SimKD(Distiller):
    """Chen et al., Knowledge Distillation with the Reused Teacher Classifier, CVPR 2022, in a form for embeddings.

    The student's embedding e follows the teacher's through a linear map. The teacher's classifier, as it is, makes logits
    of the mapped embedding. No label and no logit trains anything. The published projector is three convolutions before
    the pooling, which stay with the student; this one is linear and after it.

    So map and classifier are one linear layer, of weight W_cls W_map and bias W_cls b_map + b_cls. The student stays an
    ``ImageClassifier`` with a ``LinearClsHead``: its head is set to that product wherever it is asked or saved. The
    classifier is saved with it.

    Args:
        beta: weight of the squared error, a number or a schedule; not 0.
        cls_weight, objective: as in :class:`Distiller`, for losses beside it. They see the logits of the product, so they
            train backbone and map, never the classifier.
        student: config of a classifier with a ``LinearClsHead``.
        teacher: one whose logits a linear layer makes of its embedding, see :func:`linear_classifier`; or its cached answers.

    Example:
        >>> model.update(type=SimKD)                     # in a config of a teacher and a student

    Raises:
        InputError: student or teacher have another head.
    """

    own_parts = Distiller.own_parts | {'simkd'}

    def __init__(self, student: dict | nn.Module, teacher: dict | nn.Module, beta: Schedule = 1.0,
                 cls_weight: Schedule = 0.0, objective: dict[str, dict] | None = None, **kwargs):
        check_names(objective, self.own_parts, 'SimKD')
        parts = {'simkd': dict(type=MappedEmbeddingLoss, weight=beta), **(objective or {})}
        super().__init__(student, teacher, objective=parts, cls_weight=cls_weight, **kwargs)
        if 'simkd' not in self.losses:
            raise InputError('beta of SimKD weighs the error that trains its map, so it cannot be 0')
        head = self.student.head
        if not isinstance(head, LinearClsHead):
            raise InputError(f'SimKD sets the head of the student, a LinearClsHead, and it has a {type(head).__name__}')
        head.fc.requires_grad_(False)                    # a product: the optimizer leaves it alone
        for name, value in zip(('weight', 'bias'), self.teacher_classifier()):
            self.register_buffer(f'classifier_{name}', value.detach().clone())
        widths = tuple(self.classifier_weight.shape)
        wanted = head.fc.out_features, self.losses['simkd'].map.out_features
        if widths != wanted:
            raise InputError(f"the teacher's classifier is a linear layer of {widths}, and {wanted} lead from its embedding to "
                             'the classes')

    def teacher_classifier(self) -> tuple[Tensor, Tensor]:
        """Weight (classes, D) and bias of the teacher's last layer."""
        classifier = linear_classifier(self.teacher) if self.cache is None else self.cache.classifier()
        if classifier is None:
            raise InputError("SimKD gives the student the teacher's classifier, one linear layer, and the teacher "
                             f'({type(self.cache or self.teacher).__name__}) ends in none')
        return classifier

    def load_teacher(self) -> None:
        """Loads the teacher, and keeps its classifier."""
        super().load_teacher()
        for kept, value in zip((self.classifier_weight, self.classifier_bias), self.teacher_classifier()):
            kept.copy_(value.detach())

    @torch.no_grad()
    def set_head(self) -> None:
        """Sets the student's head to the product of map and classifier, in the precision of the weights."""
        fc, layer = self.student.head.fc, self.losses['simkd'].map
        with torch.autocast(fc.weight.device.type, enabled=False):
            fc.weight.copy_(self.classifier_weight @ layer.weight)
            fc.bias.copy_(self.classifier_weight @ layer.bias + self.classifier_bias)

    def forward(self, inputs, data_samples=None, mode: str = 'tensor'):
        """See :class:`Distiller`; 'tensor' and 'predict' answer with the head as the map is now."""
        if mode != 'loss':
            self.set_head()
        return super().forward(inputs, data_samples, mode)

    def _save_to_state_dict(self, *args, **kwargs) -> None:
        """Both torch's and mmengine's ``state_dict`` call this before the student's own."""
        self.set_head()
        super()._save_to_state_dict(*args, **kwargs)

    def compute_losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        """The parts of the total, with the logits of the classifier for the mapped embedding."""
        mapped = self.losses['simkd'].map(student.embedding)
        logits = F.linear(mapped, self.classifier_weight, self.classifier_bias)
        return super().compute_losses(student._replace(logits=logits), teacher, batch)
