"""Cross-Resolution Relational Contrastive Distillation: Eq. 13 of the paper on top of the distiller."""
import torch
from torch import Tensor

from mmcrrcd.models.losses.kd import KDLoss
from mmcrrcd.models.losses.relation_contrast import RelationContrastLoss
from mmcrrcd.registry import ALGORITHMS
from mmcrrcd.structures import Batch, NetworkOutput

from .distiller import Distiller, check_names
from .schedule import Schedule


@ALGORITHMS.register_module()
class CRRCD(Distiller):
    """L = L_cls + alpha L_kd + beta L_rcd, Eq. 13 (Zhang et al., Low-Resolution Object Recognition with Cross-Resolution
    Relational Contrastive Distillation).

    Args:
        alpha: weight of :class:`KDLoss`, a number or a schedule; 0 leaves the loss out.
        beta: weight of :class:`RelationContrastLoss`, likewise. The paper's 2 is for a critic whose scale it does not give;
            with this one it drowns the classification loss (docs/method.md).
        temperature: of the KD loss, rho in Eq. 12.
        objective: further losses beside these two.
        student, teacher, teacher_checkpoint, ...: see :class:`Distiller`.
        dim, num_negatives, tau, num_anchors, sampling, normalizer, center, num_samples: see :class:`RelationContrastLoss`.

    Every ``RATIO_INTERVAL`` iterations the log shows ``gradient_ratio``: the norm of the relational loss's gradient at the
    student's last feature map over that of the classification loss, weights included.
    """

    own_parts = Distiller.own_parts | {'kd', 'rcd'}
    RATIO_INTERVAL = 100

    def __init__(self, student: dict, teacher: dict, alpha: Schedule = 0.5, beta: Schedule = 0.2, temperature: float = 4.0,
                 dim: int = 128, num_negatives: int | None = 512, tau: float = 0.1, num_anchors: int | None = 8,
                 sampling: str = 'supervised', normalizer: str = 'softmax', center: str | None = 'anchor',
                 num_samples: int | None = None, objective: dict[str, dict] | None = None, **kwargs):
        check_names(objective, self.own_parts, 'CRRCD')
        parts = {}
        if alpha:
            parts['kd'] = dict(type=KDLoss, weight=alpha, temperature=temperature)
        if beta:
            parts['rcd'] = dict(type=RelationContrastLoss, weight=beta, dim=dim, num_negatives=num_negatives, tau=tau,
                                num_anchors=num_anchors, sampling=sampling, normalizer=normalizer, center=center,
                                num_samples=num_samples)
        super().__init__(student, teacher, objective={**parts, **(objective or {})}, **kwargs)
        self._calls = 0

    def compute_losses(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> dict[str, Tensor]:
        parts = super().compute_losses(student, teacher, batch)
        if torch.cuda.is_available() and torch.cuda.is_current_output_capturing():
            return parts                                 # of a CUDA graph, which would compute the ratio in every step
        self._calls += 1
        if ({'loss_rcd', 'loss_cls'} <= parts.keys() and student.feature_maps and student.feature_maps[-1].requires_grad
                and self._calls % self.RATIO_INTERVAL == 0):
            rcd, cls = (torch.autograd.grad(parts[name], student.feature_maps[-1], retain_graph=True)[0].float().norm()
                        for name in ('loss_rcd', 'loss_cls'))
            parts['gradient_ratio'] = rcd / cls
        return parts
