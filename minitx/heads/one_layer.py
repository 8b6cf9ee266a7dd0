"""One attention layer by plain matrix products, every tensor named, and the same from the model to compare with.

`LayerTensors` is the arithmetic, to be read from top to bottom.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from minitx.attention import Attention, HeadAccess, MultiHeadAttention, Recorder
from minitx.config import ModelConfig
from minitx.fast.attention import causal_mask, rotate
from minitx.latent_attention import LatentAttention
from minitx.system.errors import require

Rotary = tuple[Tensor, Tensor]


Check = tuple[str, float]
"""What is compared, and the largest difference, relative to the largest number."""
TOLERANCE = 1e-4
"""Largest difference, relative to the largest number, that rounding to float32 explains."""


class LayerTensors:
    """The tensors of one layer on one text, computed head by head in the order of the attributes."""

    def __init__(self, attention: Attention, x: Tensor, rotary: Rotary) -> None:
        """x: (seq, d_model), the normed residual that enters the layer."""
        self.x = x  # (seq, d_model)
        if isinstance(attention, LatentAttention):
            self._from_latent(attention, rotary)
        else:
            assert isinstance(attention, MultiHeadAttention)
            self._from_projections(attention, rotary)
        seq, heads, kv = len(x), range(attention.n_head), self.kv_head

        self.scores = torch.stack([self.turned_query[head] @ self.turned_key[kv[head]].T for head in heads])
        self.scaled = self.scores / math.sqrt(self.turned_query.size(-1))
        self.masked = self.scaled.masked_fill(~causal_mask(seq, seq), float("-inf"))
        exponentials = (self.masked - self.masked.amax(dim=-1, keepdim=True)).exp()
        self.pattern = exponentials / exponentials.sum(dim=-1, keepdim=True)
        # all of them (head, query, key)

        self.mixed = torch.stack([self.pattern[head] @ self.value[kv[head]] for head in heads])  # (head, seq, d_head)
        self.concatenated = torch.cat(list(self.mixed), dim=-1)  # (seq, head * d_head)
        slices = attention.output.weight.split(attention.d_head, dim=1)  # of each head: (d_model, d_head)
        self.shares = torch.stack([self.mixed[head] @ slices[head].T for head in heads])  # (head, seq, d_model)
        self.output = self.concatenated @ attention.output.weight.T  # (seq, d_model)

    def _from_projections(self, attention: MultiHeadAttention, rotary: Rotary) -> None:
        """Queries, keys and values of multi-head attention; a group of query heads may share keys and values."""
        x, d_head, group = self.x, attention.d_head, attention.n_head // attention.n_kv_head
        served_by = attention.served_by
        self.kv_head = [head // group for head in range(attention.n_head)] if served_by is None else served_by.tolist()

        self.query = torch.stack([x @ weight.T for weight in attention.query.weight.split(d_head)])
        self.key = torch.stack([x @ weight.T for weight in attention.key.weight.split(d_head)])
        self.value = torch.stack([x @ weight.T for weight in attention.value.weight.split(d_head)])
        # query: (head, seq, d_head); key and value: (kv_head, seq, d_head)

        self.normed_query, self.normed_key = self.query, self.key
        if attention.query_norm is not None and attention.key_norm is not None:
            self.normed_query, self.normed_key = attention.query_norm(self.query), attention.key_norm(self.key)
        self.turned_query = rotate(self.normed_query[None], rotary)[0]  # (head, seq, d_head)
        self.turned_key = rotate(self.normed_key[None], rotary)[0]  # (kv_head, seq, d_head)

    def _from_latent(self, attention: LatentAttention, rotary: Rotary) -> None:
        """Those of latent attention: each head unfolds its keys and values; the rotary part of keys is common."""
        x, d_head, d_rotary = self.x, attention.d_head, attention.d_rotary
        self.kv_head = list(range(attention.n_head))
        latent = x @ attention.compress.weight.T  # (seq, d_latent)
        if attention.latent_norm is not None:
            latent = attention.latent_norm(latent)
        rotary_key = x @ attention.rotary_key.weight.T  # (seq, d_rotary)

        self.query = torch.stack([x @ weight.T for weight in attention.query.weight.split(d_head + d_rotary)])
        self.key = torch.stack(
            [torch.cat((latent @ weight.T, rotary_key), dim=-1) for weight in attention.key.weight.split(d_head)]
        )
        self.value = torch.stack([latent @ weight.T for weight in attention.value.weight.split(d_head)])
        # query and key: (head, seq, d_head + d_rotary); value: (head, seq, d_head)

        self.normed_query, self.normed_key = self.query, self.key
        self.turned_query, self.turned_key = (
            torch.cat((whole[..., :d_head], rotate(whole[None, ..., d_head:], rotary)[0]), dim=-1)
            for whole in (self.query, self.key)
        )


def check(what: str, ours: Tensor, theirs: Tensor) -> Check:
    """Compare two tensors."""
    return what, float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-9))


def require_equal(where: str, checks: Sequence[Check]) -> None:
    """Raise AssertionError if a check of `where` misses by more than `TOLERANCE`."""
    for what, difference in checks:
        if not difference <= TOLERANCE:  # NaN fails, too
            raise AssertionError(f"{where}: {what} misses by {difference:.1e}")


def require_no_tricks(config: ModelConfig) -> None:
    """Raise `UserError` for a model with tricks, whose queries, keys and values come from more than one product."""
    tricks = ", ".join(config.tricks)
    require(not tricks, f"This model has tricks ({tricks}), and only a layer without can be shown: take another run.")


def model_tensors(attention: Attention, x: Tensor, rotary: Rotary) -> dict[str, Tensor]:
    """What the model itself computes on x, by the names in `LayerTensors`; "fused" is its output on that route.

    Queries, keys and values are those of multi-head attention: latent attention has none of their shape.
    """
    recorder = Recorder(want_shares=True)
    output = attention(x[None], rotary=rotary, heads=HeadAccess(recorder=recorder))[0]
    names = () if isinstance(attention, LatentAttention) else ("query", "key", "value")
    projected = {name: getattr(attention, name)(x[None])[0] for name in names}
    return {
        **{name: whole.unflatten(1, (-1, attention.d_head)).swapaxes(0, 1) for name, whole in projected.items()},
        "pattern": recorder.patterns[attention.layer][0],
        "mixed": recorder.head_outputs[attention.layer][0],
        "shares": recorder.shares[attention.layer][0],
        "output": output,
        "fused": attention(x[None], rotary=rotary)[0],
    }
