"""Linear layers without bias: products of a matrix with the vector of each token.

PyTorch takes float32 products on the CPU from MKL, which uses AVX-512 on Intel's processors alone. oneDNN, which is in
PyTorch as well, uses it wherever it is, and takes half the time on AMD's (docs/notes.md) at the same precision; how the
two compare on Intel's was not measured.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MIN_PRODUCTS = 2**20
"""Multiplications below which starting oneDNN takes longer than it saves."""


class Linear(nn.Linear):
    """x Wᵀ for x (…, d_in) and the weight W, (d_out, d_in)."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__(d_in, d_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if not takes_onednn(x, self.weight):
            return F.linear(x, self.weight)
        return OneDNNLinear.apply(x, self.weight) if torch.is_grad_enabled() else onednn_product(x, self.weight)


class OneDNNLinear(torch.autograd.Function):
    """y = x Wᵀ."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return onednn_product(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """dx = dy W and dW = dyᵀ x, summed over all vectors."""
        x, weight = ctx.saved_tensors
        grad_x = onednn_product(grad, weight.t()) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return grad_x, None
        x, grad = x.flatten(0, -2).t(), grad.flatten(0, -2).t()  # (d_in, vector) and (d_out, vector)
        # The first argument is copied, for it is not contiguous: better the narrower one.
        grad_weight = onednn_product(grad, x) if len(grad) <= len(x) else onednn_product(x, grad).t().contiguous()
        return grad_x, grad_weight


def takes_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether a product is one that oneDNN computes in less time."""
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * weight.size(0) >= MIN_PRODUCTS
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
    )


def onednn_product(x: Tensor, weight: Tensor) -> Tensor:
    """x Wᵀ by oneDNN, by the operation that compiled models use; the weight may be in oneDNN's own layout."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


def onednn_layout(weight: Tensor, n_vectors: int) -> Tensor:
    """A weight, (d_out, d_in), in oneDNN's own layout, for products with about `n_vectors` vectors."""
    return cast(Tensor, torch.ops.mkldnn._reorder_linear_weight(weight, n_vectors))


def has_onednn_bfloat16() -> bool:
    """Whether oneDNN takes bfloat16 on this processor, which needs AVX-512."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
