"""Linear layers without bias: products of a matrix with the vector of every token. The textbook line is `F.linear`.

On the CPU PyTorch multiplies float32 with MKL, which uses AVX-512 on Intel processors alone. PyTorch also contains
oneDNN, which takes half the time of MKL on AMD, but 1.05 to 1.1 times as long on Intel (docs/notes.md).
oneDNN's operations are private in PyTorch: a PyTorch without them multiplies as it does by itself.
"""

import functools
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

MIN_PRODUCTS = 2**20
"""Multiplications below which starting oneDNN takes longer than it saves."""
MIN_PACKED = 2**19
"""The same for a weight in float32 that is packed beforehand."""
ONEDNN = ("_linear_pointwise", "_reorder_linear_weight", "_is_mkldnn_bf16_supported")
"""The operations of oneDNN in `torch.ops.mkldnn`."""


class Linear(nn.Linear):
    """x Wᵀ for x (…, d_in) and the weight W, (d_out, d_in)."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__(d_in, d_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if not takes_onednn(x, self.weight):
            return F.linear(x, self.weight)
        return OneDNNLinear.apply(x, self.weight) if torch.is_grad_enabled() else onednn_product(x, self.weight)


class OneDNNLinear(torch.autograd.Function):
    """y = x Wᵀ, all three products by oneDNN."""

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


class PackedLinear:
    """x Wᵀ for about `n_vectors` vectors x, (n_vectors, d_in): W, (d_out, d_in), is stored in the order it is read."""

    weight: Tensor

    def __init__(self, weight: Tensor, n_vectors: int) -> None:
        large = n_vectors > 1 and weight.numel() * n_vectors >= MIN_PACKED
        self.packed = has_onednn() and (
            (weight.dtype == torch.float32 and large) or (weight.dtype == torch.bfloat16 and has_onednn_bfloat16())
        )
        if self.packed:  # in blocks, by oneDNN
            self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), n_vectors)
        else:  # (d_in, d_out): the product of one vector then runs along the rows
            self.weight = weight.t().clone(memory_format=torch.contiguous_format)

    def __call__(self, x: Tensor) -> Tensor:
        return onednn_product(x, self.weight) if self.packed else x @ self.weight


def takes_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN computes x Wᵀ in less time than PyTorch does by itself."""
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * weight.size(0) >= MIN_PRODUCTS
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and is_amd()
        and has_onednn()
        and not torch.is_autocast_enabled("cpu")
    )


def onednn_product(x: Tensor, weight: Tensor) -> Tensor:
    """x Wᵀ by oneDNN, by the operation that compiled models use; the weight may be packed in oneDNN's blocks."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


@functools.cache
def has_onednn() -> bool:
    """Whether this PyTorch has oneDNN with the operations used here."""
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in ONEDNN)


def has_onednn_bfloat16() -> bool:
    """Whether oneDNN multiplies bfloat16 on this processor, which needs AVX-512."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_fast_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 in less time than float32; False if PyTorch has no answer.

    Intel's needs AMX for it: with AVX-512 alone bfloat16 takes twice as long (docs/notes.md).
    """
    has = capabilities()
    return bool(has.get("amx_bf16") or (has.get("avx512_bf16") and is_amd()))


def is_amd() -> bool:
    """Whether AMD made this processor: SSE4a is in no other."""
    return bool(capabilities().get("sse4a"))


def capabilities() -> Mapping[str, Any]:
    """What this processor can do, by name; nothing where PyTorch cannot tell."""
    ask = getattr(torch.cpu, "get_capabilities", None)  # not in every version
    return ask() if ask else {}
