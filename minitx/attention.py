"""Multi-head attention, written out.

Each token asks a question (query) of the tokens it may see. Each of those offers an address (key) and a content
(value). A head compares queries with keys in its subspace. It turns the scores into one weighting of the context, its
pattern, and mixes the values by it. Heads run side by side. Their outputs, concatenated and mixed by the output
projection, are one vector per token again.

Two routes lead through the same projections. The explicit one shows every intermediate to a `Recorder`. The fused one
is PyTorch's kernel, and training takes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from minitx.cache import KeyValueCache
from minitx.config import ModelConfig
from minitx.fast.attention import fused_attention, rotate
from minitx.fast.linear import Linear
from minitx.fast.norm import RMSNorm


@dataclass
class Recorder:
    """Records what the heads do in one forward pass, by layer. A layer without heads has no entry.

    patterns: (batch, head, query, key), the softmax output; each row sums to 1.
    values: (batch, kv_head, key, value width), what each key offers; latents where attention is absorbed.
    head_outputs: (batch, head, seq, d_head), each head's mix of values, its gate applied.
    shares: (batch, head, seq, d_model), what each head adds to the block's output; collected if `want_shares`.
    """

    want_shares: bool = False
    patterns: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)
    head_outputs: dict[int, Tensor] = field(default_factory=dict)
    shares: dict[int, Tensor] = field(default_factory=dict)

    def record(self, layer: int, pattern: Tensor, value: Tensor, head_output: Tensor, output_weight: Tensor) -> None:
        self.patterns[layer] = pattern.detach()
        self.values[layer] = value.detach()
        self.head_outputs[layer] = head_output.detach()
        if self.want_shares:
            self.shares[layer] = head_shares(head_output.detach(), output_weight.detach())


@dataclass
class HeadAccess:
    """Reaches into the heads of a forward pass: gates change their outputs, a recorder sees them.

    gates: (layer, n_head) or (layer, batch, n_head), multiply the heads' outputs: 1 leaves a head, 0 removes it.
    stand_in: (layer, n_head, d_head), what a head outputs where its gate is 0; zero by default, a blend in between.
    """

    gates: Tensor | None = None
    recorder: Recorder | None = None
    stand_in: Tensor | None = None

    def gated(self, head_output: Tensor, layer: int, heads: Sequence[int]) -> Tensor:
        """The outputs (batch, head, seq, d_head) of these heads of a layer, behind their gates."""
        if self.gates is None:
            return head_output
        gate = self.gates[layer][..., heads, None, None]  # (head, 1, 1) or (batch, head, 1, 1)
        if self.stand_in is None:
            return head_output * gate
        return head_output * gate + self.stand_in[layer, heads, None] * (1 - gate)


def rotary_tables(length: int, d_head: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (length, d_head / 2), of rotary position embedding (Su et al. 2021, RoFormer, eq. 34).

    Component i of the first half of a head turns together with component i of the second half, by
    position · theta^(-2i / d_head): the layout of Llama in `transformers`.
    """
    frequency = theta ** (-torch.arange(0, d_head, 2, dtype=torch.float32) / d_head)  # (d_head / 2)
    angle = torch.outer(torch.arange(length, dtype=torch.float32), frequency)  # (length, d_head / 2)
    return angle.cos(), angle.sin()


def explicit_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """Head output (batch, head, query, d_head) and pattern (batch, head, query, key): softmax(Q Kᵀ / √d_head) V.

    Vaswani et al. 2017, equation 1. Keys and values may have fewer heads than queries; each then serves a group.
    """
    group = query.size(1) // key.size(1)
    key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    scores = query @ key.mT * (1 / math.sqrt(query.size(3)))  # (batch, head, query, key)
    if causal:
        later = torch.ones_like(scores, dtype=torch.bool).triu(1 + key.size(2) - query.size(2))  # keys that come later
        scores = scores.masked_fill(later, float("-inf"))
    pattern = scores.softmax(dim=-1)  # (batch, head, query, key)
    return pattern.to(value.dtype) @ value, pattern


def head_shares(head_output: Tensor, output_weight: Tensor) -> Tensor:
    """What each head adds to the block's output: its (batch, head, seq, d_head) times its slice of the projection.

    Returns (batch, head, seq, d_model); the sum over heads is the block's output (Elhage et al. 2021).
    """
    n_head, d_head = head_output.size(1), head_output.size(3)
    slices = output_weight.view(-1, n_head, d_head).permute(1, 2, 0)  # (head, d_head, d_model)
    return head_output @ slices.to(head_output.dtype)


class Attention(nn.Module):
    """The steps that every kind of attention shares: attend, gate, record, concatenate, project."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.heads, self.d_head = layer, config.heads_in(layer), config.d_head
        self.n_head = len(self.heads)
        self.output: Linear  # n_head * d_head → d_model; a subclass creates it last, as seeded runs expect

    def attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        causal: bool,
        heads: HeadAccess | None,
        unfold: Tensor | None = None,
    ) -> Tensor:
        """The block's output (batch, seq, d_model) of (batch, head, seq, width) queries, keys and values.

        unfold: (head, value width, d_head), turns mixed values into the heads' outputs.
        """
        access = heads or HeadAccess()
        if access.recorder is None:
            head_output = fused_attention(query, key, value, causal)
        else:
            head_output, pattern = explicit_attention(query, key, value, causal)
        if unfold is not None:
            head_output = head_output @ unfold.to(head_output.dtype)
        head_output = access.gated(head_output, self.layer, self.heads)  # (batch, head, seq, d_head)
        if access.recorder is not None:
            access.recorder.record(self.layer, pattern, value, head_output, self.output.weight)
        concatenated = head_output.transpose(1, 2).flatten(2)  # (batch, seq, head * d_head)
        return self.output(concatenated)


class MultiHeadAttention(Attention):
    """Multi-head attention with `n_head` query heads and `n_kv_head` key-value heads of width d_model / n_head.

    In a pruned model they are the heads left in `layer`, and groups of query heads may differ in size.
    """

    served_by: Tensor | None

    def __init__(self, config: ModelConfig, layer: int = 0) -> None:
        super().__init__(config, layer)
        kv_heads = config.kv_heads_in(layer)
        self.n_kv_head = len(kv_heads)
        server = [kv_heads.index(head * config.kv_heads // config.n_head) for head in self.heads]
        even = len({server.count(kv_head) for kv_head in server}) == 1
        # The key-value head of each query head, where pruning left groups of different sizes.
        self.register_buffer("served_by", None if even else torch.tensor(server), persistent=False)
        self.query = Linear(config.d_model, self.n_head * self.d_head)
        self.key = Linear(config.d_model, self.n_kv_head * self.d_head)
        self.value = Linear(config.d_model, self.n_kv_head * self.d_head)
        self.output = Linear(self.n_head * self.d_head, config.d_model)
        self.query_norm = RMSNorm(self.d_head, eps=config.norm_eps) if config.qk_norm else None
        self.key_norm = RMSNorm(self.d_head, eps=config.norm_eps) if config.qk_norm else None
        self.cache_widths = (self.n_kv_head, self.d_head, self.d_head)  # key-value heads, width of keys and of values

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        causal: bool | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        cache: KeyValueCache | None = None,
        heads: HeadAccess | None = None,
    ) -> Tensor:
        """Attend from x, (batch, seq, d_model), and return the same shape.

        context: (batch, context_seq, d_model) makes this cross-attention: queries from x, keys and values from it.
        causal: forbid looking ahead; by default for self-attention only.
        rotary: cosines and sines of the positions of x, each (seq, d_head / 2); self-attention only.
        cache: keys and values of earlier tokens; those of x are written after them.
        heads: gates and a recorder; with a recorder the explicit route is taken.
        """
        causal = check_context(context, causal, rotary, cache)
        source = x if context is None else context
        query = self.query(x).unflatten(2, (-1, self.d_head))  # (batch, seq, head, d_head)
        key = self.key(source).unflatten(2, (-1, self.d_head))  # (batch, source_seq, kv_head, d_head)
        value = split(self.value(source), self.d_head)  # (batch, kv_head, source_seq, d_head)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        query, key = query.transpose(1, 2), key.transpose(1, 2)  # (batch, head, seq, d_head) as the value
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        if cache is not None:
            key, value = cache.append(self.layer, key, value)
            query = query.to(key.dtype)
        if self.served_by is not None:
            key, value = key[:, self.served_by], value[:, self.served_by]  # (batch, head, source_seq, d_head)
        return self.attend(query, key, value, causal, heads)


def split(x: Tensor, width: int) -> Tensor:
    """(batch, seq, head * width) → (batch, head, seq, width)."""
    return x.unflatten(2, (-1, width)).transpose(1, 2)


def check_context(context: Tensor | None, causal: bool | None, rotary: object, cache: object) -> bool:
    """Whether attention is causal; raises ValueError for what cross-attention would ignore."""
    if context is not None and (cache is not None or rotary is not None or causal):
        raise ValueError("cross-attention takes no cache, no rotary positions and no causal mask")
    return context is None if causal is None else causal
