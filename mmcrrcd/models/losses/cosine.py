"""Regression of the teacher's embedding by its direction, the plainest way to follow it."""
from torch import Tensor
from torch.nn import functional as F

from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import MapLoss


@LOSSES.register_module()
class CosineLoss(MapLoss):
    """1 - the cosine between the teacher's embedding and a learned linear map of the student's, mean over the images."""

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """Scalar, 0 to 2; reads the embeddings."""
        return 1 - F.cosine_similarity(self.map(student.embedding), teacher.embedding).mean()
