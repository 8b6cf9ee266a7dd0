"""RMSNorm (Zhang and Sennrich 2019): each vector is divided by its root mean square, then scaled by a learned weight.

The textbook line is `F.rms_norm`. It is one kernel on a GPU, but on the CPU a dozen passes over memory, most of them
in the backward pass. `CPUNorm` computes the same in half as many.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class RMSNorm(nn.RMSNorm):
    """Normalises the last dimension of x; returns the precision in which the next matrix product is computed."""

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        if kind == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return CPUNorm.apply(x, self.weight, self.eps, dtype)
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps).to(dtype)


class CPUNorm(torch.autograd.Function):
    """y = w · x / r with r = √(mean(x²) + eps), computed in the precision of w and returned in `dtype`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        x = x.to(weight.dtype)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = length.square_().div_(x.size(-1)).add_(eps).rsqrt_()  # 1 / r
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).mul_(weight).to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """dx = (w · dy − x · Σ(w · x · dy) / (r² · width)) / r and dw = Σ dy · x / r over all vectors."""
        x, weight, inverse = ctx.saved_tensors
        grad, width = grad.to(x.dtype), x.size(-1)
        product = (grad * x).reshape(-1, width)
        along = (product @ weight).view(inverse.shape)  # Σ(w · x · dy): how far w · dy points along x
        grad_weight = inverse.reshape(-1) @ product
        grad_x = (grad * weight).mul_(inverse).addcmul_(x, along * inverse**3, value=-1 / width)
        return grad_x, grad_weight, None, None
