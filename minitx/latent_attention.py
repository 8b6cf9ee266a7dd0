"""Multi-head latent attention: the keys and values of all heads come from one short vector for each token.

DeepSeek-V2 (2024), section 2.1. A token is compressed into a latent; each head unfolds its key and its value from it.
Only the latent is cached. A rotary position cannot pass through that unfolding, so it gets separate components: a few
more in each query, and one key for all heads. Queries are not compressed, as in DeepSeek-V2-Lite: that would save
memory in training, but nothing in the cache.

Two forms compute the same. Plain: unfold keys and values, then attend. Absorbed: unfold the queries instead, attend
to the cached latents as they are, and unfold the outputs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from minitx.attention import Attention, HeadAccess, check_context, split
from minitx.cache import KeyValueCache
from minitx.config import ModelConfig
from minitx.fast.attention import rotate
from minitx.fast.linear import Linear
from minitx.fast.norm import RMSNorm


class LatentAttention(Attention):
    """`n_head` heads that share a latent of width `d_latent` and a rotary key of width `d_rotary`."""

    def __init__(self, config: ModelConfig, layer: int = 0) -> None:
        super().__init__(config, layer)
        self.d_latent, self.d_rotary = config.latent_width, config.rotary_width
        self.query = Linear(config.d_model, self.n_head * (self.d_head + self.d_rotary))
        self.compress = Linear(config.d_model, self.d_latent)
        self.rotary_key = Linear(config.d_model, self.d_rotary)
        self.key = Linear(self.d_latent, self.n_head * self.d_head)
        self.value = Linear(self.d_latent, self.n_head * self.d_head)
        self.output = Linear(self.n_head * self.d_head, config.d_model)
        self.latent_norm = RMSNorm(self.d_latent, eps=config.norm_eps) if config.qk_norm else None
        self.cache_widths = (1, self.d_rotary, self.d_latent)  # the rotary key and the latent, for all heads

    def forward(
        self,
        x: Tensor,
        context: Tensor | None = None,
        *,
        causal: bool | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        cache: KeyValueCache | None = None,
        heads: HeadAccess | None = None,
        absorb: bool | None = None,
    ) -> Tensor:
        """As `MultiHeadAttention.forward`; rotary tables are (seq, d_rotary / 2).

        absorb: take the absorbed form. By default it is taken when the cache holds earlier tokens, since the plain form
        would unfold their keys and values at every step. With few heads or many queries the plain form is less work.
        """
        causal = check_context(context, causal, rotary, cache)
        source = x if context is None else context
        query = split(self.query(x), self.d_head + self.d_rotary)  # (batch, head, seq, d_head + d_rotary)
        query, rotary_query = query.split([self.d_head, self.d_rotary], dim=-1)
        latent = self.compress(source)[:, None]  # (batch, 1, source_seq, d_latent)
        if self.latent_norm is not None:
            latent = self.latent_norm(latent)
        rotary_key = self.rotary_key(source)[:, None]  # (batch, 1, source_seq, d_rotary)
        if rotary is not None:
            rotary_query, rotary_key = rotate(rotary_query, rotary), rotate(rotary_key, rotary)
        if absorb is None:
            absorb = cache is not None and cache.length > 0
        if cache is not None:
            rotary_key, latent = cache.append(self.layer, rotary_key, latent)

        if absorb:
            unfold_key = self.key.weight.view(self.n_head, self.d_head, self.d_latent)
            unfold_value = self.value.weight.view(self.n_head, self.d_head, self.d_latent)
            query = query @ unfold_key  # (batch, head, seq, d_latent): (W c) · q = c · (Wᵀ q)
            # Attention divides by the root of the width it sees, which is not that of the heads any more.
            rescale = math.sqrt((self.d_latent + self.d_rotary) / (self.d_head + self.d_rotary))
            query = torch.cat((query, rotary_query), dim=-1) * rescale
            key = torch.cat((latent, rotary_key), dim=-1)  # (batch, 1, source_seq, d_latent + d_rotary)
            return self.attend(query.to(key.dtype), key, latent, causal, heads, unfold_value.mT)
        query = torch.cat((query, rotary_query), dim=-1)  # (batch, head, seq, d_head + d_rotary)
        key = split(self.key(latent[:, 0]), self.d_head)  # (batch, head, source_seq, d_head)
        key = torch.cat((key, rotary_key.expand(-1, self.n_head, -1, -1)), dim=-1)
        value = split(self.value(latent[:, 0]), self.d_head)  # (batch, head, source_seq, d_head)
        return self.attend(query.to(key.dtype), key, value, causal, heads)
