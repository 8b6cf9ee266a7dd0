"""Keys and values of past tokens, kept so that decoding reads each token once."""

from __future__ import annotations

import torch
from torch import Tensor


class KeyValueCache:
    """The keys and values of one layer's past tokens: buffers of fixed size, (capacity, batch, kv_head, d_head), filled
    from the start. Those of a token lie together, so that a step of decoding reads through memory from end to end."""

    def __init__(
        self,
        batch: int,
        n_kv_head: int,
        capacity: int,
        d_head: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.keys = torch.zeros(capacity, batch, n_kv_head, d_head, device=device, dtype=dtype)
        self.values = torch.zeros_like(self.keys)
        self.length = 0

    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add (batch, kv_head, seq, d_head) keys and values; return views of all there are now.

        Raises ValueError when they do not fit.
        """
        start, end = self.length, self.length + key.size(2)
        if end > len(self.keys):
            raise ValueError(f"{end} tokens do not fit into a cache of {len(self.keys)}")
        self.keys[start:end] = key.permute(2, 0, 1, 3)
        self.values[start:end] = value.permute(2, 0, 1, 3)
        self.length = end
        return self.keys[:end].permute(1, 2, 0, 3), self.values[:end].permute(1, 2, 0, 3)

    def clear(self) -> None:
        """Forget all tokens."""
        self.length = 0

    def begin_with(self, start: KeyValueCache) -> None:
        """Hold what `start` holds, its one sequence as the beginning of every sequence here, and nothing else."""
        self.length = start.length
        self.keys[: start.length] = start.keys[: start.length]
        self.values[: start.length] = start.values[: start.length]

    @property
    def nbytes(self) -> int:
        """Bytes that the buffers take."""
        return self.keys.nbytes + self.values.nbytes


class LatentCache(KeyValueCache):
    """One layer's past tokens in latent attention: the shared rotary key is all of the key that is kept, the latent
    stands where values do."""

    def __init__(
        self,
        batch: int,
        capacity: int,
        d_latent: int,
        d_rotary: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.keys = torch.zeros(capacity, batch, 1, d_rotary, device=device, dtype=dtype)
        self.values = torch.zeros(capacity, batch, 1, d_latent, device=device, dtype=dtype)
        self.length = 0
