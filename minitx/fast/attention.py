"""Rotary positions, laid out for the CPU."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the vectors of x, (batch, head, seq, d_head), by the angles of their positions; tables (seq, d_head). For
    one position, seq may be left out of both.

    The tables are laid out as x is, which the projection wrote token by token: on the CPU that is quicker.
    """
    cos, sin = (for_heads(table.to(x.dtype), x.size(1)) for table in rotary)
    other_half = x.transpose(-3, -2).roll(x.size(-1) // 2, dims=-1).transpose(-3, -2)
    return torch.addcmul(x * cos, other_half, sin)


def for_heads(table: Tensor, n_head: int) -> Tensor:
    """A table, (seq, d_head), for every head, (head, seq, d_head), with a token's heads side by side in memory; that of
    a single token as it is."""
    if table.dim() == 1 or len(table) == 1:
        return table
    return table[:, None].expand(-1, n_head, -1).contiguous().transpose(0, 1)
