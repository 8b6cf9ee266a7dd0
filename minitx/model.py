"""The decoder-only transformer: tokens in, logits out.

Pre-norm blocks of attention and SwiGLU on a residual stream, with RMSNorm and rotary positions, without biases. That
is Llama's architecture, and Qwen3's with query-key norm. The loss is a function beside the model.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitx.attention import HeadAccess, MultiHeadAttention, rotary_tables
from minitx.cache import KeyValueCache, LayerCache, empty_layer
from minitx.config import ModelConfig
from minitx.fast.linear import Linear
from minitx.fast.loss import cross_entropy
from minitx.fast.norm import RMSNorm
from minitx.latent_attention import LatentAttention
from minitx.tricks import install


class FeedForward(nn.Module):
    """SwiGLU (Shazeer 2020): down(silu(gate(x)) * up(x)), each token by itself."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = Linear(config.d_model, config.ff_width)
        self.up = Linear(config.d_model, config.ff_width)
        self.down = Linear(config.ff_width, config.d_model)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))  # (batch, seq, d_model)


class Block(nn.Module):
    """Attention moves information between tokens, the feed-forward layer works on each; both add to the residual."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        kind = LatentAttention if config.attention == "latent" else MultiHeadAttention
        self.attention_norm = RMSNorm(config.d_model, eps=config.norm_eps)
        self.attention = kind(config, layer) if config.heads_in(layer) else None  # None: all are pruned
        self.feed_forward_norm = RMSNorm(config.d_model, eps=config.norm_eps)
        self.feed_forward = FeedForward(config)
        self.dropout = config.dropout

    def forward(
        self,
        residual: Tensor,
        rotary: tuple[Tensor, Tensor],
        cache: KeyValueCache | None = None,
        heads: HeadAccess | None = None,
        kept: Tensor | None = None,
    ) -> Tensor:
        if self.attention is not None:
            attended = self.attention(self.attention_norm(residual), rotary=rotary, cache=cache, heads=heads)
            residual = residual + self.drop(attended, kept, 0)
        return residual + self.drop(self.feed_forward(self.feed_forward_norm(residual)), kept, 1)

    def drop(self, x: Tensor, kept: Tensor | None, branch: int) -> Tensor:
        """Dropout (Srivastava et al. 2014): x where `kept` (batch, branch, seq, d_model) says so, scaled up; else 0."""
        return x if kept is None else x * kept[:, branch] * (1 / (1 - self.dropout))


class Transformer(nn.Module):
    """Embedding → blocks → norm → logits."""

    rotary_cos: Tensor
    rotary_sin: Tensor

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        self.embedding = nn.Embedding(vocab_size, config.d_model)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.final_norm = RMSNorm(config.d_model, eps=config.norm_eps)
        self.output = Linear(config.d_model, vocab_size)
        if config.tie_embeddings:
            self.output.weight = self.embedding.weight
        cos, sin = rotary_tables(config.context_length, config.rotary_width, config.rope_theta)
        self.register_buffer("rotary_cos", cos, persistent=False)  # (context_length, rotary_width / 2)
        self.register_buffer("rotary_sin", sin, persistent=False)
        self.initialise()
        install(self, config, vocab_size)

    @torch.no_grad()
    def initialise(self) -> None:
        """A matrix leaves the size of vectors as it is. Those that write to the residual start smaller, so that its
        variance does not grow with depth (Radford et al. 2019)."""
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                parameter.fill_(1.0)  # norms
            elif parameter is self.embedding.weight:
                parameter.normal_(std=self.config.embedding_std)
            elif name.endswith(("attention.output.weight", "feed_forward.down.weight")):
                parameter.normal_(std=1 / math.sqrt(2 * self.config.n_layer * parameter.size(1)))
            else:
                parameter.normal_(std=1 / math.sqrt(parameter.size(1)))

    def forward(self, tokens: Tensor, **inside: Any) -> Tensor:
        """Logits (batch, seq, vocab_size) for the token after each of `tokens` (batch, seq); inside: see `residual`."""
        return self.unembed(self.residual(tokens, **inside))

    def unembed(self, residual: Tensor) -> Tensor:
        """Logits (…, vocab_size) from the residual (…, d_model) after the last block."""
        return self.output(self.final_norm(residual))

    def residual(
        self,
        x: Tensor,
        *,
        cache: KeyValueCache | None = None,
        heads: HeadAccess | None = None,
        kept: Tensor | None = None,
        first_layer: int = 0,
        last_layer: int | None = None,
    ) -> Tensor:
        """The residual (batch, seq, d_model) after block `last_layer`, by default the last.

        x: tokens (batch, seq), or the residual (batch, seq, d_model) that enters block `first_layer`.
        cache: from `new_cache`; tokens then follow those already in it.
        heads: reaches into the heads of every layer; see `HeadAccess`.
        kept: what dropout keeps, (batch, layer, 2, seq, d_model) of bool: of each block's attention and feed-forward.
        """
        start = cache.length if cache is not None else 0
        end = start + x.size(1)
        if end > self.config.context_length:
            raise ValueError(f"{end} tokens are more than the context length of {self.config.context_length}")
        rotary = (self.rotary_cos[start:end], self.rotary_sin[start:end])
        residual = self.embedding(x) if x.dim() == 2 else x  # (batch, seq, d_model)
        layers = range(first_layer, len(self.blocks) if last_layer is None else last_layer + 1)
        for layer in layers:
            residual = self.blocks[layer](residual, rotary, cache, heads, None if kept is None else kept[:, layer])
        if cache is not None:
            cache.length = end
        return residual

    def new_cache(self, batch: int, capacity: int | None = None, dtype: torch.dtype | None = None) -> KeyValueCache:
        """An empty cache for `batch` sequences of up to `capacity` (the context length) tokens."""
        weight, capacity = self.embedding.weight, capacity or self.config.context_length
        layers: list[LayerCache | None] = []
        for block in self.blocks:
            attention = cast(Block, block).attention
            if attention is None:
                layers.append(None)
            else:
                layers.append(empty_layer(capacity, batch, attention.cache_widths, weight, dtype or weight.dtype))
        return KeyValueCache(layers)


def next_token_loss(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy in nats of logits (batch, seq, vocab_size) against targets (batch, seq), computed in float32."""
    return cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction)
