"""Cross-Resolution Relational Contrastive Distillation: Eq. 13 of the paper on top of the distiller."""
from mmcrrcd.models.losses.kd import KDLoss
from mmcrrcd.models.losses.relation_contrast import RelationContrastLoss
from mmcrrcd.registry import ALGORITHMS

from .distiller import Distiller
from .objective import check_names
from .schedule import Schedule


@ALGORITHMS.register_module()
class CRRCD(Distiller):
    """L = L_cls + alpha L_kd + beta L_rcd, Eq. 13 (Zhang et al., Low-Resolution Object Recognition with Cross-Resolution
    Relational Contrastive Distillation).

    Args:
        alpha: weight of :class:`KDLoss`, a number or a schedule; 0 leaves the loss out.
        beta: weight of :class:`RelationContrastLoss`, likewise. The paper's 2 is for a critic whose scale it does not give.
        temperature: of the KD loss, rho in Eq. 12.
        relation, num_negatives, tau, num_anchors, sampling, normalizer, dim, center, num_samples: see
            :class:`RelationContrastLoss`.
        objective: further losses beside these two.
        backbone_gradient: what classification and KD send into the backbone is multiplied by this, so that the relations lead
            it (docs/method.md). Say 1 with AdamW, which takes the size out of a gradient, and with the learned form.
        student, teacher, teacher_checkpoint, ...: see :class:`Distiller`.

    Example:
        >>> import torch
        >>> network = dict(type='mmpretrain.ImageClassifier', backbone=dict(type='mmcrrcd.ResNetCIFAR', depth=8),
        ...                neck=dict(type='mmpretrain.GlobalAveragePooling'),
        ...                head=dict(type='mmpretrain.LinearClsHead', num_classes=10, in_channels=64))
        >>> model = CRRCD(student=network, teacher=network, data_preprocessor=dict(
        ...     type='mmcrrcd.PairPreprocessor', mean=[128] * 3, std=[64] * 3, resolution=8))
        >>> data = dict(inputs=torch.zeros(8, 3, 32, 32, dtype=torch.uint8), labels=torch.arange(8), index=torch.arange(8))
        >>> losses = model(**model.data_preprocessor(data, training=True), mode='loss')
        >>> sorted(name for name in losses if name.startswith('loss'))
        ['loss_cls', 'loss_kd', 'loss_rcd']
    """

    own_parts = Distiller.own_parts | {'kd', 'rcd'}

    def __init__(self, student: dict, teacher: dict, alpha: Schedule = 0.9, beta: Schedule = 1.0, temperature: float = 4.0,
                 relation: str = 'direction', num_negatives: int | None = 512, tau: float = 0.1,
                 num_anchors: int | None = 16, sampling: str = 'supervised', normalizer: str = 'softmax',
                 dim: int | None = None, center: str | None = 'auto', num_samples: int | None = None,
                 objective: dict[str, dict] | None = None, backbone_gradient: Schedule = 0.05, **kwargs):
        check_names(objective, self.own_parts, 'CRRCD')
        parts = {}
        if alpha:
            parts['kd'] = dict(type=KDLoss, weight=alpha, temperature=temperature)
        if beta:
            parts['rcd'] = dict(type=RelationContrastLoss, weight=beta, relation=relation, num_negatives=num_negatives, tau=tau,
                                num_anchors=num_anchors, sampling=sampling, normalizer=normalizer, dim=dim, center=center,
                                num_samples=num_samples)
        super().__init__(student, teacher, objective={**parts, **(objective or {})}, backbone_gradient=backbone_gradient,
                         **kwargs)
