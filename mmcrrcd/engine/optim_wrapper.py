"""Mixed precision in bfloat16, on CPU and GPU."""
from contextlib import contextmanager, nullcontext

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch.overrides import TorchFunctionMode

from mmcrrcd.registry import OPTIM_WRAPPERS


class OnePixelInFloat32(TorchFunctionMode):
    """In the block, convolutions over maps of one pixel on a CPU are computed in float32, 1x1 kernels aside.

    The weight gradient in bfloat16 of those with stride 2 is uninitialized memory in torch 2.14.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.conv2d and len(args) > 1 and args[0].device.type == 'cpu':
            images, weight = args[:2]
            if images.shape[-2:] == (1, 1) and weight.shape[-2:] != (1, 1):
                with torch.autocast('cpu', enabled=False):
                    return function(images.float(), weight, *args[2:], **kwargs)
        return function(*args, **kwargs)


@OPTIM_WRAPPERS.register_module()
class BF16OptimWrapper(OptimWrapper):
    """``OptimWrapper`` whose forward passes run under bfloat16 autocast.

    bfloat16 has float32's range, so there is no gradient scaler (which mmengine's ``AmpOptimWrapper`` always has) and
    nothing that needs a GPU. Weights, optimizer state and, in this package's algorithms, all losses stay in float32.
    """

    @contextmanager
    def optim_context(self, model):
        """mmengine's context, with bfloat16 autocast in it."""
        device = get_device()
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            with OnePixelInFloat32() if device == 'cpu' else nullcontext():
                yield
