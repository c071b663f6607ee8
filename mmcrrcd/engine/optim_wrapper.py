"""Mixed precision in bfloat16, on CPU and GPU."""
from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper

from mmcrrcd.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class BF16OptimWrapper(OptimWrapper):
    """``OptimWrapper`` whose forward passes run under bfloat16 autocast.

    bfloat16 has float32's range, so there is no gradient scaler (which mmengine's ``AmpOptimWrapper`` always has) and
    nothing that needs a GPU. Weights, optimizer state and, in this package's algorithms, all losses stay in float32.
    """

    @contextmanager
    def optim_context(self, model):
        with super().optim_context(model), torch.autocast(get_device(), torch.bfloat16):
            yield
