"""Attention in fewer or faster operations: PyTorch's fused kernel, and rotary positions in the layout of the CPU.

tests/fast/test_attention.py holds them equal to the textbook lines of `minitx.attention`.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def fused_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
    """The head output (batch, head, query, d_head) of `explicit_attention`, by a kernel that never forms the pattern.

    In bfloat16 on the CPU the kernel's backward pass is far slower than the products themselves.
    """
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and torch.is_grad_enabled():
        return batched_attention(query, key, value, causal)
    n_query, n_key = query.size(2), key.size(2)
    mask = causal_mask(n_query, n_key, query.device) if causal and 1 < n_query < n_key else None
    is_causal = causal and 1 < n_query == n_key  # the newest token alone may look at everything
    grouped = query.size(1) != key.size(1)
    return F.scaled_dot_product_attention(query, key, value, mask, is_causal=is_causal, enable_gqa=grouped)


def batched_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
    """`explicit_attention` with scale and mask inside the product: one pass over the scores in place of three."""
    group = query.size(1) // key.size(1)
    if group > 1:
        key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    n_query, n_key = query.size(2), key.size(2)
    mask = query.new_full((n_query, n_key), -math.inf).triu(1 + n_key - n_query) if causal else query.new_zeros(1)
    scale = 1 / math.sqrt(query.size(3))
    scores = torch.baddbmm(mask, query.flatten(0, 1), key.flatten(0, 1).mT, alpha=scale)  # (batch * head, query, key)
    pattern = scores.unflatten(0, query.shape[:2]).softmax(dim=-1)  # (batch, head, query, key)
    return pattern.to(value.dtype) @ value


def causal_mask(n_query: int, n_key: int, device: torch.device | str = "cpu") -> Tensor:
    """(query, key), True where a query may look: at keys no later than itself. The queries are the last keys."""
    return torch.ones(n_query, n_key, dtype=torch.bool, device=device).tril(n_key - n_query)


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the vectors of x, (batch, head, seq, d_head), by the angles of their positions; tables (seq, d_head / 2).

    (a, b) → (a · cos - b · sin, b · cos + a · sin) for the two halves a, b of a vector. It is computed in x's memory
    order, in which a token's heads lie side by side.
    """
    x = x.transpose(1, 2)  # (batch, seq, head, d_head)
    cos, sin = (table[:, None].expand(-1, x.size(2), -1).contiguous() for table in signed_tables(rotary, x.dtype))
    trains_on_cpu = x.requires_grad and x.device.type == "cpu" and not torch.compiler.is_compiling()
    return (CPURotation.apply if trains_on_cpu else turn)(x, cos, sin).transpose(1, 2)


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`rotate` vectors (…, d_head) with tables from `signed_tables`."""
    return x.roll(x.size(-1) // 2, dims=-1).mul_(sin).addcmul_(x, cos)


class CPURotation(torch.autograd.Function):
    """`turn`, whose gradient is turned back in the memory order of x, not in that of attention's products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return turn(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return turn(grad.contiguous(), cos, -sin), None, None


def signed_tables(rotary: tuple[Tensor, Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosines and sines (…, d_head / 2) for both halves, (…, d_head); the sines of the first half are negative."""
    cos, sin = (table.to(dtype) for table in rotary)
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)
