"""One token at a time: the model's arithmetic, arranged for products of a matrix with a few vectors.

A step reads every weight once and computes little. Its time goes into streaming weights from memory and into starting
operations. So weights are stored in the order they are read, matrices with the same input are fused, and norm weights
and 1/√d_head are folded in. `Decoder` runs PyTorch's operations, `CompiledDecoder` one compiled program.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from minitx.attention import MultiHeadAttention
from minitx.cache import KeyValueCache
from minitx.fast.attention import signed_tables, turn
from minitx.fast.linear import PackedLinear
from minitx.model import Block, Transformer


@dataclass
class DecoderBlock:
    """The weights of one block, fused."""

    query_key_value: PackedLinear  # d_model → (n_head + 2 n_kv_head) * d_head
    head_norm: Tensor | None  # (n_head + n_kv_head, d_head), of queries and keys
    output: PackedLinear  # n_head * d_head → d_model
    gate_up: PackedLinear  # d_model → 2 d_ff
    down: PackedLinear  # d_ff → d_model


class Decoder:
    """Decodes `batch` sequences side by side with a copy of the model's weights: after an update, make another."""

    linear: type[PackedLinear] = PackedLinear
    devices: tuple[str, ...] = ("cpu",)

    @classmethod
    def why_not(cls, model: Transformer, batch: int = 1) -> str | None:
        """Why this cannot decode `batch` sequences of `model`, to follow "not decoded"; None if it can."""
        config, device = model.config, model.embedding.weight.device.type
        heads = [len(config.heads_in(layer)) for layer in range(config.n_layer)]
        if config.attention != "multi_head" or min(heads) < config.n_head:
            return "only multi-head attention with all its heads can be"
        if config.tricks:
            return "no model with tricks can be"
        return None if device in cls.devices else f"not on {device}"

    @torch.no_grad()
    def __init__(self, model: Transformer, batch: int = 1) -> None:
        self.model, self.batch = model, batch
        self.blocks = [decoder_block(cast(Block, block), batch, self.linear) for block in model.blocks]
        self.unembed = self.linear(model.output.weight * scaled(model.final_norm.weight), batch)
        weight, config = model.embedding.weight, model.config
        self.epsilon = {
            width: weight.new_tensor(math.sqrt(config.norm_eps * width)) for width in (config.d_model, config.d_head)
        }
        self.rotary = signed_tables((model.rotary_cos, model.rotary_sin), weight.dtype)  # (context_length, d_head)

    def new_cache(self, capacity: int) -> KeyValueCache:
        """An empty cache to decode from, for up to `capacity` tokens of every sequence."""
        return self.model.new_cache(self.batch, capacity)

    def __call__(self, tokens: Tensor, cache: KeyValueCache) -> Tensor:
        """Logits (batch, vocab) of the token after `tokens`, (batch), which are added to the cache."""
        logits = self.step(tokens, cache.length, [layer for layer in cache.layers if layer is not None])
        cache.length += 1
        return logits

    def step(self, tokens: Tensor, position: int | Tensor, past: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """The logits for tokens at `position`. `past`: the keys and values of every layer, to which it adds theirs."""
        config = self.model.config
        n_head, n_kv_head, d_head = config.n_head, config.kv_heads, config.d_head
        cos, sin = (table[position] for table in self.rotary)  # (d_head)
        residual = self.model.embedding(tokens)  # (batch, d_model)
        for block, (keys, values) in zip(self.blocks, past, strict=True):
            heads = block.query_key_value(self.unit(residual)).view(tokens.size(0), -1, d_head)
            query_key, value = heads.split((n_head + n_kv_head, n_kv_head), dim=1)
            if block.head_norm is not None:
                query_key = self.unit(query_key) * block.head_norm
            query, key = turn(query_key, cos, sin).split((n_head, n_kv_head), dim=1)  # (batch, head, d_head)
            residual = residual + block.output(self.attend(query, key, value, position, keys, values))
            gate, up = block.gate_up(self.unit(residual)).chunk(2, dim=1)  # (batch, d_ff)
            residual = residual + block.down(F.silu(gate).mul_(up))
        return self.unembed(self.unit(residual))

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, position: int | Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """The heads' outputs, (batch, n_head * d_head), for scaled queries (batch, n_head, d_head).

        First writes the new key and value, (batch, n_kv_head, d_head), to the layer's keys and values, (capacity,
        batch, n_kv_head, d_head). Then sums over all sequences and heads in the order of memory. torch.bmm would take
        one head of one sequence after the other, and wait for memory at the start of every one.
        """
        keys[position], values[position] = key, value
        length = cast(int, position) + 1
        keys, values = keys[:length].unsqueeze(3), values[:length].unsqueeze(3)
        # In float32: bfloat16 would round every product in a sum.
        precise = query.float() if query.dtype == torch.bfloat16 else query
        precise = precise.view(len(query), key.size(1), -1, key.size(2))  # (batch, n_kv_head, group, d_head)
        scores = (precise * keys).sum(-1)  # (seq, batch, n_kv_head, group)
        mixed = (scores.softmax(0).unsqueeze(4) * values).sum(0)  # (batch, n_kv_head, group, d_head)
        return mixed.flatten(1).to(key.dtype)

    def unit(self, x: Tensor) -> Tensor:
        """RMSNorm of x without its weight and its factor √width, which are folded into the next matrix."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return x / length.hypot(self.epsilon[x.size(-1)])


def decoder_block(block: Block, batch: int, linear: type[PackedLinear]) -> DecoderBlock:
    """The weights of a block, fused."""
    attention, feed_forward = cast(MultiHeadAttention, block.attention), block.feed_forward
    scale = 1 / math.sqrt(attention.d_head)  # of the scores; folded into the queries
    query, head_norm = attention.query.weight, None
    if attention.query_norm is None or attention.key_norm is None:
        query = query * scale
    else:  # the norm would undo a scale in the matrix
        query_norm = (scaled(attention.query_norm.weight) * scale).expand(attention.n_head, -1)
        head_norm = torch.cat((query_norm, scaled(attention.key_norm.weight).expand(attention.n_kv_head, -1)))
    query_key_value = torch.cat((query, attention.key.weight, attention.value.weight))
    gate_up = torch.cat((feed_forward.gate.weight, feed_forward.up.weight))
    return DecoderBlock(
        linear(query_key_value * scaled(block.attention_norm.weight), batch),
        head_norm,
        linear(attention.output.weight, batch),
        linear(gate_up * scaled(block.feed_forward_norm.weight), batch),
        linear(feed_forward.down.weight, batch),
    )


def scaled(weight: Tensor) -> Tensor:
    """The weight of a norm times √width, the factor that `Decoder.unit` omits."""
    return weight * math.sqrt(weight.numel())
