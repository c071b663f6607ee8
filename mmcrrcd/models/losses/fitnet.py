"""FitNet's hint (Romero et al., ICLR 2015, https://arxiv.org/abs/1412.6550): a stage follows one of the teacher's."""
from torch import Tensor, nn
from torch.nn import functional as F

from mmcrrcd.registry import LOSSES
from mmcrrcd.structures import Batch, NetworkOutput

from .base import DistillLoss
from .stages import pair_stages, paired_maps


def hint_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Eq. 3 as the field's tables compute it, the mean of the squared differences. Two tensors of one shape -> scalar."""
    return F.mse_loss(student_map, teacher_map)


@LOSSES.register_module()
class FitNetLoss(DistillLoss):
    """:func:`hint_loss` of a middle stage, the student's after a learned 1x1 convolution, batch norm and ReLU.

    The stage is the student's second, the stem not counted, where it has a counterpart of the teacher's. Otherwise it is the
    middle one of those that do. No first stage of training with only hints.
    """

    needs = frozenset({'feature_maps'})

    def build(self, student: NetworkOutput, teacher: NetworkOutput) -> None:
        """Choose the stage and make the regressor."""
        pairs = pair_stages(student, teacher)
        self.pair = next((pair for pair in pairs if pair[0] == 1 + student.has_stem), pairs[len(pairs) // 2])
        width_s, width_t = (output.feature_maps[i].shape[1] for output, i in zip((student, teacher), self.pair))
        self.regressor = nn.Sequential(nn.Conv2d(width_s, width_t, 1, bias=False), nn.BatchNorm2d(width_t), nn.ReLU())

    def forward(self, student: NetworkOutput, teacher: NetworkOutput, batch: Batch) -> Tensor:
        """:func:`hint_loss` of the middle stage, a scalar."""
        (student_map, teacher_map), = paired_maps(student, teacher, [self.pair])
        return hint_loss(self.regressor(student_map), teacher_map)
