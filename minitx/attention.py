"""Multi-head attention, written out.

Each token asks a question (query) of the tokens it may see; each of those offers an address (key) and a content
(value). A head compares queries with keys in a subspace of its own, turns the scores into one weighting of the
context (its pattern) and mixes the values by it. Heads run side by side; their outputs, concatenated and mixed by the
output projection, are one vector per token again.

Two routes lead through the same four projections: explicit, which can show every intermediate to a `Recorder`, and
fused, PyTorch's own kernel, which training takes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitx.cache import KeyValueCache
from minitx.config import ModelConfig
from minitx.fast.attention import rotate
from minitx.fast.linear import Linear
from minitx.fast.norm import RMSNorm


@dataclass
class Recorder:
    """Collects what the heads did in one forward pass: one entry per attention layer, in the order they ran.

    patterns: (batch, head, query, key), the softmax output; each row sums to 1.
    head_outputs: (batch, head, seq, d_head), each head's mix of values, its gate applied.
    shares: (batch, head, seq, d_model), what each head adds to the block's output; collected if `want_shares`.
    """

    want_shares: bool = False
    patterns: list[Tensor] = field(default_factory=list)
    head_outputs: list[Tensor] = field(default_factory=list)
    shares: list[Tensor] = field(default_factory=list)

    def record(self, pattern: Tensor, head_output: Tensor, output_weight: Tensor) -> None:
        self.patterns.append(pattern.detach())
        self.head_outputs.append(head_output.detach())
        if self.want_shares:
            self.shares.append(head_shares(head_output.detach(), output_weight.detach()))


def rotary_tables(length: int, d_head: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each (length, d_head), of rotary position embedding (Su et al. 2021, RoFormer, eq. 34).

    Component i of the first half of a head turns together with component i of the second half, by
    position · theta^(-2i / d_head): the layout of Llama in `transformers`. The sines of the first half are negative.
    """
    frequency = theta ** (-torch.arange(0, d_head, 2, dtype=torch.float32) / d_head)  # (d_head / 2)
    angle = torch.outer(torch.arange(length, dtype=torch.float32), frequency)  # (length, d_head / 2)
    return angle.cos().repeat(1, 2), torch.cat((-angle.sin(), angle.sin()), dim=1)


def causal_mask(n_query: int, n_key: int, device: torch.device | str = "cpu") -> Tensor:
    """(query, key), True where a query may look: at keys no later than itself. The queries are the last keys."""
    return torch.ones(n_query, n_key, dtype=torch.bool, device=device).tril(n_key - n_query)


def explicit_attention(
    query: Tensor, key: Tensor, value: Tensor, causal: bool, dropout: float
) -> tuple[Tensor, Tensor]:
    """Head output (batch, head, query, d_head) and pattern (batch, head, query, key): softmax(Q Kᵀ / √d_head) V.

    Vaswani et al. 2017, equation 1. Keys and values may have fewer heads than queries; each then serves a group.
    """
    group = query.size(1) // max(1, key.size(1))  # a layer may have lost all its heads
    if group > 1:
        key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    n_query, n_key, scale = query.size(2), key.size(2), 1 / math.sqrt(query.size(3))
    hidden = ~causal_mask(n_query, n_key, query.device) if causal else query.new_zeros(1, dtype=torch.bool)
    mask = torch.zeros_like(hidden, dtype=query.dtype).masked_fill(hidden, float("-inf"))  # (query, key)
    scores = torch.baddbmm(mask, query.flatten(0, 1), key.flatten(0, 1).mT, alpha=scale)  # (batch * head, query, key)
    pattern = scores.unflatten(0, query.shape[:2]).softmax(dim=-1)  # (batch, head, query, key)
    mixed = F.dropout(pattern, dropout).to(value.dtype) @ value  # (batch, head, query, d_head)
    return mixed, pattern


def fused_attention(query: Tensor, key: Tensor, value: Tensor, causal: bool, dropout: float) -> Tensor:
    """The same head output from PyTorch's fused kernel, which never forms the pattern."""
    if query.size(1) == 0:  # the kernel of torch 2.11 ends the process
        return query @ key.mT @ value
    if query.device.type == "cpu" and query.dtype == torch.bfloat16 and torch.is_grad_enabled():
        return explicit_attention(query, key, value, causal, dropout)[0]  # the kernel's backward pass is far slower
    grouped = query.size(1) != key.size(1)
    n_query, n_key = query.size(2), key.size(2)
    if not causal or n_query == 1:  # the newest token alone may look at everything
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, enable_gqa=grouped)
    if n_query == n_key:
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True, enable_gqa=grouped)
    mask = causal_mask(n_query, n_key, query.device)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout, enable_gqa=grouped)


def head_shares(head_output: Tensor, output_weight: Tensor) -> Tensor:
    """What each head adds to the block's output: its (batch, head, seq, d_head) times its slice of the projection.

    Returns (batch, head, seq, d_model); the sum over heads is the block's output (Elhage et al. 2021).
    """
    n_head, d_head = head_output.size(1), head_output.size(3)
    slices = output_weight.view(-1, n_head, d_head).permute(1, 2, 0)  # (head, d_head, d_model)
    return head_output @ slices.to(head_output.dtype)


class MultiHeadAttention(nn.Module):
    """Multi-head attention with `n_head` query heads and `n_kv_head` key-value heads of width d_model / n_head.

    In a pruned model they are those left in `layer`, and groups of query heads may differ in size.
    """

    served_by: Tensor | None

    def __init__(self, config: ModelConfig, layer: int = 0) -> None:
        super().__init__()
        heads, kv_heads = config.heads_in(layer), config.kv_heads_in(layer)
        self.n_head, self.n_kv_head, self.d_head = len(heads), len(kv_heads), config.d_head
        server = [kv_heads.index(head * config.kv_heads // config.n_head) for head in heads]
        even = len({server.count(kv_head) for kv_head in server}) <= 1
        # The key-value head of each query head, where pruning left groups of different sizes.
        self.register_buffer("served_by", None if even else torch.tensor(server), persistent=False)
        self.dropout = config.dropout
        self.query = Linear(config.d_model, self.n_head * self.d_head)
        self.key = Linear(config.d_model, self.n_kv_head * self.d_head)
        self.value = Linear(config.d_model, self.n_kv_head * self.d_head)
        self.output = Linear(self.n_head * self.d_head, config.d_model)
        self.query_norm = RMSNorm(self.d_head, eps=config.norm_eps) if config.qk_norm else None
        self.key_norm = RMSNorm(self.d_head, eps=config.norm_eps) if config.qk_norm else None

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        causal: bool | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        cache: KeyValueCache | None = None,
        gate: Tensor | None = None,
        explicit: bool = False,
        recorder: Recorder | None = None,
    ) -> Tensor:
        """Attend from x, (batch, seq, d_model), and return the same shape.

        context: (batch, context_seq, d_model) makes this cross-attention: queries from x, keys and values from it.
        causal: forbid looking ahead; by default for self-attention only.
        rotary: cosines and sines of the positions of x, each (seq, d_head); self-attention only.
        cache: keys and values of earlier tokens; those of x are added to it.
        gate: (head) or (batch, head) for the heads there are, multiplies each head's output: 1 leaves it, 0 removes it.
        explicit: take the explicit route; a recorder takes it too, so that there always is a pattern to record.
        """
        if context is not None and (cache is not None or rotary is not None or causal):
            raise ValueError("cross-attention takes no cache, no rotary positions and no causal mask")
        causal = context is None if causal is None else causal
        source = x if context is None else context
        query = self.split(self.query(x), self.n_head)  # (batch, head, seq, d_head)
        key = self.split(self.key(source), self.n_kv_head)  # (batch, kv_head, source_seq, d_head)
        value = self.split(self.value(source), self.n_kv_head)  # (batch, kv_head, source_seq, d_head)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if rotary is not None:
            query, key = rotate(query, rotary), rotate(key, rotary)
        if cache is not None:
            key, value = cache.append(key, value)
            query = query.to(key.dtype)
        if self.served_by is not None:
            key, value = key[:, self.served_by], value[:, self.served_by]  # (batch, head, source_seq, d_head)

        dropout = self.dropout if self.training else 0.0
        if explicit or recorder is not None:
            head_output, pattern = explicit_attention(query, key, value, causal, dropout)
        else:
            head_output = fused_attention(query, key, value, causal, dropout)
        if gate is not None:
            head_output = head_output * gate.view(*gate.shape, 1, 1)
        if recorder is not None:
            recorder.record(pattern, head_output, self.output.weight)
        concatenated = head_output.transpose(1, 2).flatten(2)  # (batch, seq, head * d_head)
        return self.output(concatenated)

    def new_cache(self, batch: int, capacity: int, device: torch.device, dtype: torch.dtype) -> KeyValueCache:
        """An empty cache for `batch` sequences of up to `capacity` tokens."""
        return KeyValueCache(batch, self.n_kv_head, capacity, self.d_head, device=device, dtype=dtype)

    def split(self, x: Tensor, n_head: int) -> Tensor:
        """(batch, seq, head * d_head) → (batch, head, seq, d_head)."""
        return x.view(*x.shape[:2], n_head, self.d_head).transpose(1, 2)
