"""A teacher as the constant that it is: its batch norms folded into the convolutions before them."""
import copy

import torch
from mmcv.cnn.utils import fuse_conv_bn
from mmengine.logging import print_log
from torch import Tensor, nn

from mmcrrcd.models.networks import extract, use_channels_last


@torch.no_grad()
def fold(network: nn.Module, images: Tensor, tolerance: float = 1e-3) -> nn.Module:
    """A copy of ``network`` (in eval mode) without the batch norms that follow a convolution.

    The folding follows the order in which a module lists its children. So the copy is tried on ``images`` (N, 3, H, W).
    ``network`` itself is returned where that cannot be done. It is, too, where the logits differ by more than ``tolerance`` x
    their largest value. Embeddings count where it has no logits.
    """
    try:
        folded = fuse_conv_bn(copy.deepcopy(network))
    except RuntimeError:                                 # a norm of another width than the convolution listed before it
        return network
    folded = use_channels_last(folded.requires_grad_(False).eval())
    with torch.backends.cudnn.flags(allow_tf32=False):   # whose rounding alone can differ by more than the tolerance
        outputs = extract(network, images), extract(folded, images)
    before, after = (output.embedding if output.logits is None else output.logits for output in outputs)
    if (before - after).abs().max() <= tolerance * before.abs().max():
        return folded
    print_log('batch norms of the teacher stay as they are: folding them by the order of its modules changes its answers',
              'current')
    return network
