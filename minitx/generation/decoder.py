"""One token at a time: the model's own arithmetic, laid out for products of a matrix and a few vectors.

Such a step reads every weight once and computes little, so what counts is how fast weights stream from memory and how
many operations are started. Matrices are laid out for that; those that read the same input are one; the weights of
norms are multiplied into them beforehand, and so is the scale of the scores, but for models with query-key norm, whose
weights carry it. `Decoder` does so with operations of PyTorch; `CompiledDecoder` has torch.compile make one program of
them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from minitx.attention import MultiHeadAttention
from minitx.cache import KeyValueCache
from minitx.fast.attention import signed_tables, turn
from minitx.fast.linear import has_onednn_bfloat16, onednn_layout, onednn_product
from minitx.model import Block, Transformer

MIN_PACKED = 2**19
"""Multiplications below which, for a batch in float32, oneDNN's layout saves less than starting oneDNN costs."""


class Product:
    """x → (norm · x) Wᵀ for the weight W, (out, in), of a linear layer and about `batch` vectors x, (batch, in).

    norm: the weight, (in), of the norm before it, with the factor that `Decoder.unit` leaves out.
    """

    weight: Tensor

    def __init__(self, weight: Tensor, batch: int, norm: Tensor | None = None) -> None:
        large = batch > 1 and weight.numel() * batch >= MIN_PACKED
        self.packed = torch.backends.mkldnn.is_available() and (
            (weight.dtype == torch.float32 and large) or (weight.dtype == torch.bfloat16 and has_onednn_bfloat16())
        )
        weight = weight if norm is None else weight * scaled(norm)
        if self.packed:  # in blocks, by oneDNN
            self.weight = onednn_layout(weight.contiguous(), batch)
        else:  # (in, out): the product of one vector then runs along the rows
            self.weight = weight.t().clone(memory_format=torch.contiguous_format)

    def __call__(self, x: Tensor) -> Tensor:
        if self.packed:
            return onednn_product(x, self.weight)
        return x @ self.weight


@dataclass
class DecoderBlock:
    """What one block multiplies with."""

    query_key_value: Product  # d_model → (n_head + 2 n_kv_head) * d_head
    head_norm: Tensor | None  # (n_head + n_kv_head, d_head), of queries and keys
    output: Product  # n_head * d_head → d_model
    gate_up: Product  # d_model → 2 d_ff
    down: Product  # d_ff → d_model


class Decoder:
    """Decodes `batch` sequences side by side, with the weights that `model` has now: after an update, make another."""

    product: type[Product] = Product

    @staticmethod
    def takes(model: Transformer, batch: int = 1) -> bool:
        """Whether it can stand in for `model`: on the CPU, multi-head attention, and no heads pruned away."""
        return model.embedding.weight.device.type == "cpu" and is_plain(model)

    @torch.no_grad()
    def __init__(self, model: Transformer, batch: int = 1) -> None:
        self.model = model
        self.blocks = [decoder_block(cast(Block, block), batch, self.product) for block in model.blocks]
        self.unembed = self.product(model.output.weight, batch, model.final_norm.weight)
        weight, config = model.embedding.weight, model.config
        self.epsilon = {
            width: weight.new_tensor(math.sqrt(config.norm_eps * width)) for width in (config.d_model, config.d_head)
        }

        self.rotary = signed_tables((model.rotary_cos, model.rotary_sin), weight.dtype)  # (context_length, d_head)

    def __call__(self, tokens: Tensor, cache: KeyValueCache) -> Tensor:
        """Logits (batch, vocab) of what follows `tokens`, (batch), which are added to the cache."""
        logits = self.step(tokens, cache.length, cache.layers)
        cache.length += 1
        return logits

    def step(self, tokens: Tensor, position: int | Tensor, layers: Sequence[Any]) -> Tensor:
        """The same for tokens at `position`, which is where the cache ends."""
        config = self.model.config
        n_head, n_kv_head, d_head = config.n_head, config.kv_heads, config.d_head
        cos, sin = (table[position] for table in self.rotary)  # (d_head)
        residual = self.model.embedding(tokens)  # (batch, d_model)
        for block, past in zip(self.blocks, layers, strict=True):
            heads = block.query_key_value(self.unit(residual)).view(tokens.size(0), -1, d_head)
            asking, value = heads.split((n_head + n_kv_head, n_kv_head), dim=1)  # queries and keys; values
            if block.head_norm is not None:
                asking = self.unit(asking) * block.head_norm
            query, key = turn(asking, cos, sin).split((n_head, n_kv_head), dim=1)  # (batch, head, d_head)
            residual = residual + block.output(self.attend(query, key, value, position, past))
            gate, up = block.gate_up(self.unit(residual)).chunk(2, dim=1)  # (batch, d_ff)
            residual = residual + block.down(F.silu(gate).mul_(up))
        return self.unembed(self.unit(residual))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, position: int | Tensor, past: Any) -> Tensor:
        """The heads' outputs, (batch, n_head * d_head), for queries (batch, n_head, d_head) that carry the scale of
        the scores; keys and values, (batch, n_kv_head, d_head), are added to `past`, a layer's cache.

        Sums over all sequences and heads at once, in the order of memory. torch.bmm would take the heads of each
        sequence one after the other, from as many places, and wait for memory at the start of each.
        """
        past.keys[position], past.values[position] = key, value
        keys, values = past.keys[: position + 1].unsqueeze(3), past.values[: position + 1].unsqueeze(3)
        # In float32, for every product in a sum would be rounded to bfloat16.
        precise = query.float() if query.dtype == torch.bfloat16 else query
        precise = precise.view(len(query), key.size(1), -1, key.size(2))  # (batch, n_kv_head, group, d_head)
        scores = (precise * keys).sum(-1)  # (seq, batch, n_kv_head, group)
        mixed = (scores.softmax(0).unsqueeze(4) * values).sum(0)  # (batch, n_kv_head, group, d_head)
        return mixed.flatten(1).to(key.dtype)

    def unit(self, x: Tensor) -> Tensor:
        """What RMSNorm makes of x, without its weight and its factor √width, which the matrices after it carry."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return x / length.hypot(self.epsilon[x.size(-1)])


def is_plain(model: Transformer) -> bool:
    """Whether its attention is multi-head attention with all its heads."""
    config = model.config
    return config.attention == "multi_head" and all(
        len(config.heads_in(layer)) == config.n_head for layer in range(config.n_layer)
    )


def decoder_block(block: Block, batch: int, product: type[Product]) -> DecoderBlock:
    """The weights of a block, joined."""
    attention, feed_forward = cast(MultiHeadAttention, block.attention), block.feed_forward
    scale = 1 / math.sqrt(attention.d_head)  # of the scores; the queries carry it
    query, head_norm = attention.query.weight, None
    if attention.query_norm is None or attention.key_norm is None:
        query = query * scale
    else:
        query_norm = (scaled(attention.query_norm.weight) * scale).expand(attention.n_head, -1)
        head_norm = torch.cat((query_norm, scaled(attention.key_norm.weight).expand(attention.n_kv_head, -1)))
    joined = torch.cat((query, attention.key.weight, attention.value.weight))
    gate_up = torch.cat((feed_forward.gate.weight, feed_forward.up.weight))
    return DecoderBlock(
        product(joined, batch, block.attention_norm.weight),
        head_norm,
        product(attention.output.weight, batch),
        product(gate_up, batch, block.feed_forward_norm.weight),
        product(feed_forward.down.weight, batch),
    )


def scaled(weight: Tensor) -> Tensor:
    """The weight of a norm with the factor that `Decoder.unit` leaves out."""
    return weight * math.sqrt(weight.numel())
