"""Keys and values of past tokens, kept so that decoding computes each token once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class LayerCache(NamedTuple):
    """The buffers of one layer. A token's vectors lie together, so that decoding reads memory from end to end."""

    keys: Tensor  # (capacity, batch, kv_head, key width)
    values: Tensor  # (capacity, batch, kv_head, value width)


class KeyValueCache:
    """The keys and values of every layer, with one position for all: `length` tokens from the start are filled.

    `layers` holds None for a layer without attention.
    """

    def __init__(self, layers: Sequence[LayerCache | None]) -> None:
        self.layers, self.length = list(layers), 0

    def append(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values (batch, kv_head, seq, width); return views of all keys and all values so far.

        The caller adds to `length` once all layers have written. Raises ValueError where the tokens do not fit.
        """
        keys, values = self.buffers(layer)
        end = self.length + key.size(2)
        if end > len(keys):
            raise ValueError(f"{end} tokens do not fit into a cache of {len(keys)}")
        keys[self.length : end] = key.permute(2, 0, 1, 3)
        values[self.length : end] = value.permute(2, 0, 1, 3)
        return keys[:end].permute(1, 2, 0, 3), values[:end].permute(1, 2, 0, 3)

    def buffers(self, layer: int) -> LayerCache:
        """The buffers of a layer that has attention."""
        buffers = self.layers[layer]
        assert buffers is not None
        return buffers

    def clear(self) -> None:
        """Forget all tokens."""
        self.length = 0

    def begin_with(self, start: KeyValueCache) -> None:
        """Start over, with the one sequence in `start` as the beginning of every sequence."""
        self.length = start.length
        for ours, theirs in zip(self.layers, start.layers, strict=True):
            for buffer, beginning in zip(ours or (), theirs or (), strict=True):
                buffer[: start.length] = beginning[: start.length]

    @property
    def nbytes(self) -> int:
        """Bytes that the buffers take."""
        return sum(buffer.nbytes for layer in self.layers for buffer in layer or ())


def empty_layer(
    capacity: int, batch: int, widths: tuple[int, int, int], like: Tensor, dtype: torch.dtype
) -> LayerCache:
    """Buffers on the device of `like`; `widths` are the number of key-value heads, the width of keys and of values."""
    n_kv_head, *both = widths
    keys, values = (like.new_zeros(capacity, batch, n_kv_head, width, dtype=dtype) for width in both)
    return LayerCache(keys, values)
