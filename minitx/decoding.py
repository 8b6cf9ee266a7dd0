"""One token at a time on the CPU: the model's own arithmetic, laid out for products of a matrix and a few vectors.

Such a step reads every weight once and computes little, so what counts is how fast weights stream from memory and how
many operations are started. Matrices are laid out for that; those that read the same input are one; the weights of
norms, and the scale of the scores, are multiplied into them beforehand.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from minitx.attention import KeyValueCache, MultiHeadAttention, rotate
from minitx.model import Block, Transformer


class Product:
    """x → (norm · x) Wᵀ for the weight W, (out, in), of a linear layer and about `batch` vectors x, (batch, in).

    norm: the weight, (in), of the norm before it, with the factor that `Decoder.unit` leaves out.
    """

    def __init__(self, weight: Tensor, batch: int, norm: Tensor | None = None) -> None:
        packable = {torch.float32: batch > 1, torch.bfloat16: True}
        self.packed = torch.backends.mkldnn.is_available() and packable.get(weight.dtype, False)
        # (in, out): the product of one vector then runs along the rows.
        self.weight = weight.t().clone(memory_format=torch.contiguous_format)
        if norm is not None:
            self.weight *= scaled(norm)[:, None]
        if self.packed:  # in blocks, by oneDNN
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight.t().contiguous(), batch)

    def __call__(self, x: Tensor) -> Tensor:
        if self.packed:
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, None, "none", [], "")
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
    """Decodes `batch` sequences side by side, with a copy of the weights that `model` has now."""

    @staticmethod
    def takes(model: Transformer) -> bool:
        """Whether it can stand in for `model`: on the CPU, multi-head attention, and no heads pruned away."""
        config = model.config
        return (
            model.embedding.weight.device.type == "cpu"
            and config.attention == "multi_head"
            and all(len(config.heads_in(layer)) == config.n_head for layer in range(config.n_layer))
        )

    @torch.no_grad()
    def __init__(self, model: Transformer, batch: int = 1) -> None:
        self.model = model
        self.blocks = [decoder_block(cast(Block, block), batch) for block in model.blocks]
        self.unembed = Product(model.output.weight, batch, model.final_norm.weight)
        weight, config = model.embedding.weight, model.config
        self.epsilon = {
            width: weight.new_tensor(math.sqrt(config.norm_eps * width)) for width in (config.d_model, config.d_head)
        }

    def __call__(self, tokens: Tensor, cache: list[KeyValueCache]) -> Tensor:
        """Logits (batch, vocab) of what follows `tokens`, (batch), which are added to the cache."""
        config, position = self.model.config, cache[0].length
        n_head, n_kv_head, d_head = config.n_head, config.kv_heads, config.d_head
        batch = tokens.size(0)
        rotary = self.model.rotary_cos[position], self.model.rotary_sin[position]  # (d_head)
        residual = self.model.embedding(tokens)  # (batch, d_model)
        for block, past in zip(self.blocks, cache, strict=True):
            heads = block.query_key_value(self.unit(residual)).view(batch, -1, d_head)
            asking, value = heads.split((n_head + n_kv_head, n_kv_head), dim=1)  # queries and keys; values
            if block.head_norm is not None:
                asking = self.unit(asking) * block.head_norm
            asking = rotate(asking, rotary)  # (batch, n_head + n_kv_head, d_head)
            keys, values = past.append(asking[:, n_head:, None], value[:, :, None])  # (batch, n_kv_head, seq, d_head)
            query = asking[:, :n_head].reshape(batch * n_kv_head, -1, d_head)  # (…, group, d_head)
            pattern = torch.bmm(query, keys.flatten(0, 1).mT).softmax(dim=-1)  # (…, group, seq)
            head_output = torch.bmm(pattern, values.flatten(0, 1)).view(batch, n_head * d_head)
            residual = residual + block.output(head_output)
            gate, up = block.gate_up(self.unit(residual)).chunk(2, dim=1)  # (batch, d_ff)
            residual = residual + block.down(F.silu(gate).mul_(up))
        return self.unembed(self.unit(residual))

    def unit(self, x: Tensor) -> Tensor:
        """What RMSNorm makes of x, without its weight and its factor √width, which the matrices after it carry."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return x / length.hypot(self.epsilon[x.size(-1)])


def decoder_block(block: Block, batch: int) -> DecoderBlock:
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
        Product(joined, batch, block.attention_norm.weight),
        head_norm,
        Product(attention.output.weight, batch),
        Product(gate_up, batch, block.feed_forward_norm.weight),
        Product(feed_forward.down.weight, batch),
    )


def scaled(weight: Tensor) -> Tensor:
    """The weight of a norm with the factor that `Decoder.unit` leaves out."""
    return weight * math.sqrt(weight.numel())
