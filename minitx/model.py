"""The decoder-only transformer: tokens in, logits out.

Pre-norm blocks of attention and SwiGLU on a residual stream, with RMSNorm and rotary positions and without biases:
Llama's architecture, or Qwen3's with query-key norm. The loss is a function beside the model.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitx.attention import MultiHeadAttention, Recorder, rotary_tables
from minitx.cache import KeyValueCache
from minitx.config import ModelConfig
from minitx.fast.linear import Linear
from minitx.fast.norm import RMSNorm
from minitx.latent_attention import LatentAttention


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
        self.attention_norm = RMSNorm(config.d_model, eps=config.norm_eps)
        attention = LatentAttention if config.attention == "latent" else MultiHeadAttention
        self.attention: LatentAttention | MultiHeadAttention = attention(config, layer)
        self.feed_forward_norm = RMSNorm(config.d_model, eps=config.norm_eps)
        self.feed_forward = FeedForward(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        residual: Tensor,
        rotary: tuple[Tensor, Tensor],
        cache: KeyValueCache | None,
        gate: Tensor | None,
        explicit: bool,
        recorder: Recorder | None,
    ) -> Tensor:
        attended = self.attention(
            self.attention_norm(residual), rotary=rotary, cache=cache, gate=gate, explicit=explicit, recorder=recorder
        )
        residual = residual + self.dropout(attended)
        return residual + self.dropout(self.feed_forward(self.feed_forward_norm(residual)))


class Transformer(nn.Module):
    """Embedding → blocks → norm → logits."""

    rotary_cos: Tensor
    rotary_sin: Tensor

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        self.embedding = nn.Embedding(vocab_size, config.d_model)
        with warnings.catch_warnings():  # a layer may have lost all its heads
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")
            self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.final_norm = RMSNorm(config.d_model, eps=config.norm_eps)
        self.output = Linear(config.d_model, vocab_size)
        if config.tie_embeddings:
            self.output.weight = self.embedding.weight
        cos, sin = rotary_tables(config.context_length, config.rotary_width, config.rope_theta)
        self.register_buffer("rotary_cos", cos, persistent=False)  # (context_length, rotary_width)
        self.register_buffer("rotary_sin", sin, persistent=False)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Every matrix keeps the size of what passes through it; those that write to the residual start smaller,
        so that its variance does not grow with depth (Radford et al. 2019)."""
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                parameter.fill_(1.0)  # norms
            elif parameter.numel() == 0:
                continue  # of a layer that has lost all its heads
            elif parameter is self.embedding.weight:
                parameter.normal_(std=0.02)
            elif name.endswith(("attention.output.weight", "feed_forward.down.weight")):
                parameter.normal_(std=1 / math.sqrt(2 * self.config.n_layer * parameter.size(1)))
            else:
                parameter.normal_(std=1 / math.sqrt(parameter.size(1)))

    def forward(
        self,
        tokens: Tensor,
        *,
        cache: list[KeyValueCache] | None = None,
        gates: Tensor | None = None,
        explicit: bool = False,
        recorder: Recorder | None = None,
    ) -> Tensor:
        """Logits (batch, seq, vocab_size) for the token after each of `tokens`, (batch, seq); see `residual`."""
        return self.unembed(self.residual(tokens, cache=cache, gates=gates, explicit=explicit, recorder=recorder))

    def unembed(self, residual: Tensor) -> Tensor:
        """Logits (…, vocab_size) from the residual (…, d_model) after the last block."""
        return self.output(self.final_norm(residual))

    def residual(
        self,
        tokens: Tensor,
        *,
        cache: list[KeyValueCache] | None = None,
        gates: Tensor | None = None,
        explicit: bool = False,
        recorder: Recorder | None = None,
    ) -> Tensor:
        """The residual (batch, seq, d_model) after the last block, for `tokens` (batch, seq).

        cache: one per layer, from `new_cache`; tokens then follow those already in it.
        gates: (layer, n_head) or (layer, batch, n_head), multiply the heads' outputs: 1 leaves a head, 0 removes it;
            in a pruned model those of heads that are gone are not read.
        explicit, recorder: see `MultiHeadAttention`.
        """
        start = cache[0].length if cache else 0
        end = start + tokens.size(1)
        if end > self.config.context_length:
            raise ValueError(f"{end} tokens are more than the context length of {self.config.context_length}")
        rotary = (self.rotary_cos[start:end], self.rotary_sin[start:end])
        residual = self.embedding(tokens)  # (batch, seq, d_model)
        for i, block in enumerate(self.blocks):
            residual = block(
                residual,
                rotary,
                cache[i] if cache else None,
                gates[i][..., self.config.heads_in(i)] if gates is not None else None,
                explicit,
                recorder,
            )
        return residual

    def new_cache(
        self, batch: int, capacity: int | None = None, dtype: torch.dtype | None = None
    ) -> list[KeyValueCache]:
        """An empty cache for each layer, for `batch` sequences of up to `capacity` (the context length) tokens."""
        weight = self.embedding.weight
        return [
            cast(Block, block).attention.new_cache(
                batch, capacity or self.config.context_length, weight.device, dtype or weight.dtype
            )
            for block in self.blocks
        ]


def next_token_loss(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy in nats of logits (batch, seq, vocab_size) against targets (batch, seq), computed in float32."""
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction=reduction)


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Put the model in eval mode, and each of its modules back into its own mode at the end."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
