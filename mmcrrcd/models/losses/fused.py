"""Two operations of the relational contrastive loss with gradients written out: the same values, fewer passes over memory."""
import torch
from torch import Tensor


class L2(torch.autograd.Function):
    """``F.normalize(x, dim=-1)``."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        """x over its l2 norm, along the last dimension."""
        length = x.norm(dim=-1, keepdim=True).clamp_(min=1e-12)
        unit = x / length
        ctx.save_for_backward(unit, length)
        return unit

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        """The gradient of x."""
        unit, length = ctx.saved_tensors
        return torch.addcmul(gradient, unit, (gradient * unit).sum(-1, keepdim=True), value=-1).div_(length)


class SoftmaxContrast(torch.autograd.Function):
    """``contrast(torch.baddbmm(closed, v_ts, v_t.mT), own, None)``: (A, N, D), (A, B, D), (A, B, N), (B,) -> (A, B).

    The scores are written over ``closed``. Their gradient is kept only where v_t needs one.
    """

    @staticmethod
    def forward(ctx, v_t: Tensor, v_ts: Tensor, closed: Tensor, own: Tensor) -> Tensor:
        """The loss of each pair, and what its gradient needs."""
        place = own.expand(v_ts.shape[:2])[..., None]
        slope = closed.baddbmm_(v_ts, v_t.mT).log_softmax(-1)
        loss = -slope.gather(-1, place).squeeze(-1)
        slope.exp_().scatter_add_(-1, place, -slope.new_ones(place.shape))
        ctx.save_for_backward(slope @ v_t, *((slope, v_ts) if ctx.needs_input_grad[0] else ()))
        return loss

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple:
        """The gradients of both relations."""
        slope_v_t, *kept = ctx.saved_tensors
        of_v_t = kept[0].mT @ (gradient[..., None] * kept[1]) if kept else None
        return of_v_t, gradient[..., None] * slope_v_t, None, None
