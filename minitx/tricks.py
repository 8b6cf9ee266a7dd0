"""Small changes of the architecture that make training quicker and take work away from heads: a study, no default.

modded-nanogpt, nanochat and parameter-golf found them; Llama and Qwen3 have none. `model.tricks` names those of a
model, and `install` adds them from outside, by hooks: attention and model stay as they are. The first weights are those
of the plain model with the same seed. value_embeddings, smear and bigram_hash start as no change at all.

`minitx compare --tricks all` measures which trick removes which kind of head (docs/tricks.md).
"""

from __future__ import annotations

import math
import threading
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minitx.config import ModelConfig
from minitx.config.rope import RopeScaling, scaled_frequencies
from minitx.fast.linear import Linear

GATE_WIDTH = 12
"""Components of a token's vector that a gate reads (modded-nanogpt)."""
BIGRAM_ROWS = 5
"""Rows of the bigram table for each token of the vocabulary (modded-nanogpt)."""
BIGRAM_FACTORS = 1_000_003, 8_191
"""Primes that hash the earlier and the later token of a pair."""
SOFTCAP = 15.0
"""Bound of the logits (modded-nanogpt, nanochat; Gemma 2, 2024, has 30)."""


class LastEmbedded(threading.local):
    """The tokens (batch, seq) that this thread embedded last, for layers that see only their vectors.

    Models share it: a text embedded by one may go on through the layers of its copy.
    """

    tokens: Tensor


last_embedded = LastEmbedded()


def remember(embedding: nn.Module, inputs: tuple[Tensor], embedded: Tensor) -> None:
    """Keep the tokens for `ValueEmbedding`."""
    last_embedded.tokens = inputs[0]


class ValueEmbedding(nn.Module):
    """Adds a vector of the token itself to what its value projection gives, behind a gate per key-value head.

    Zhou et al. 2024 (Value Residual Learning, arXiv 2410.17897), in nanochat's form: a table for each layer, and a gate
    2 σ(W x) that starts at 1. The table starts at 0.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.d_head = config.d_head
        self.table = nn.Parameter(torch.zeros(vocab_size, config.kv_heads * config.d_head))
        self.gate = nn.Parameter(torch.zeros(config.kv_heads, min(GATE_WIDTH, config.d_model)))

    def add(self, projection: nn.Module, inputs: tuple[Tensor], value: Tensor) -> Tensor:
        gate = 2 * torch.sigmoid(F.linear(inputs[0][..., : self.gate.size(1)], self.gate))  # (batch, seq, kv_head)
        rows = F.embedding(last_embedded.tokens, self.table).unflatten(-1, (-1, self.d_head))
        return value + (rows * gate[..., None]).flatten(-2).to(value.dtype)  # (batch, seq, kv_head * d_head)


class Smear(nn.Module):
    """Adds a share of the previous token's embedding, share · σ(w · x), with x of root mean square 1 (modded-nanogpt).

    The share starts at 0, and so does w.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.zeros(1))
        self.gate = nn.Parameter(torch.zeros(min(GATE_WIDTH, config.d_model)))

    def add(self, embedding: nn.Module, inputs: tuple[Tensor], embedded: Tensor) -> Tensor:
        x = F.rms_norm(embedded, embedded.shape[-1:])[..., : len(self.gate)]
        share = self.share * torch.sigmoid(x @ self.gate)  # (batch, seq)
        return embedded + share[..., None] * F.pad(embedded, (0, 0, 1, -1))


class BigramHash(nn.Module):
    """Adds a vector of the pair of tokens that ends here, which it may share with other pairs (modded-nanogpt).

    The table starts at 0. The first token ends no pair.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(BIGRAM_ROWS * vocab_size, config.d_model))

    def add(self, embedding: nn.Module, inputs: tuple[Tensor], embedded: Tensor) -> Tensor:
        tokens = inputs[0].long()
        pairs = (tokens[:, :-1] * BIGRAM_FACTORS[0]) ^ (tokens[:, 1:] * BIGRAM_FACTORS[1])
        return embedded + F.pad(F.embedding(pairs % len(self.table), self.table), (0, 0, 1, 0))


class KeyOffset(nn.Module):
    """Lets half of each key come from the token before: the half that rotary positions turn slowly (modded-nanogpt).

    A query then finds the place after a token in one layer. The first token has its own key whole.
    """

    slow: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        pairs = config.d_head // 2  # component i turns with i + pairs, the slower the larger i
        slow = torch.arange(config.d_head) % pairs >= pairs // 2
        self.register_buffer("slow", slow.repeat(config.kv_heads), persistent=False)  # (kv_head * d_head)

    def shift(self, projection: nn.Module, inputs: tuple[Tensor], key: Tensor) -> Tensor:
        earlier = torch.cat((key[:, :1], key[:, :-1]), dim=1)  # (batch, seq, kv_head * d_head)
        return torch.where(self.slow, earlier, key)


class SquaredReLU(nn.Module):
    """down(relu(up(x))²) (So et al. 2021, Primer) in place of SwiGLU: two matrices with as many parameters as three."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = 3 * config.ff_width // 2
        self.up, self.down = Linear(config.d_model, width), Linear(width, config.d_model)
        nn.init.normal_(self.up.weight, std=1 / math.sqrt(config.d_model))
        nn.init.normal_(self.down.weight, std=1 / math.sqrt(2 * config.n_layer * width))  # as in Transformer.initialise

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x)).square())  # (batch, seq, d_model)


def softcap(output: nn.Module, inputs: tuple[Tensor], logits: Tensor) -> Tensor:
    """Logits between ±`SOFTCAP`: c tanh(logits / c)."""
    return SOFTCAP * torch.tanh(logits / SOFTCAP)


def refuse_past(block: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Raise ValueError for a cache with earlier tokens, which it keeps only as keys and values."""
    cache = inputs[2]
    if cache is not None and cache.length:
        raise ValueError("this model's tricks look at the tokens before: give it the whole text, not a filled cache")


def scaled_tables(config: ModelConfig, scaling: RopeScaling) -> tuple[Tensor, Tensor]:
    """As `rotary_tables`, each (context_length, d_head / 2), with scaled frequencies."""
    frequency = torch.tensor(scaled_frequencies(config.d_head, config.rope_theta, scaling))  # (d_head / 2)
    angle = torch.outer(torch.arange(config.context_length, dtype=torch.float32), frequency)
    size = float(scaling.get("attention_factor", 1))  # of queries and keys, by which yarn sharpens attention
    return angle.cos() * size, angle.sin() * size


def install(model: Any, config: ModelConfig, vocab_size: int) -> None:
    """Add the tricks of `config`, and its scaling of rotary positions, to a `Transformer` with its first weights."""
    blocks, added = list(model.blocks), nn.ModuleDict()
    if "smear" in config.tricks:
        added["smear"] = smear = Smear(config)
        model.embedding.register_forward_hook(smear.add)
    if "bigram_hash" in config.tricks:
        added["bigram_hash"] = bigrams = BigramHash(config, vocab_size)
        model.embedding.register_forward_hook(bigrams.add)
    if "value_embeddings" in config.tricks:
        added["value_embeddings"] = values = nn.ModuleList(ValueEmbedding(config, vocab_size) for _ in blocks)
        model.embedding.register_forward_hook(remember)
        for block, layer in zip(blocks, values, strict=True):
            block.attention.value.register_forward_hook(cast(ValueEmbedding, layer).add)
    if "key_offset" in config.tricks:
        added["key_offset"] = offset = KeyOffset(config)
        for block in blocks:
            block.attention.key.register_forward_hook(offset.shift)
    if "relu2" in config.tricks:
        for block in blocks:
            block.feed_forward = SquaredReLU(config)
    if "softcap" in config.tricks:
        model.output.register_forward_hook(softcap)
    if config.rope_scaling is not None:
        model.rotary_cos, model.rotary_sin = scaled_tables(config, config.rope_scaling)
    if config.looks_back:
        blocks[0].register_forward_pre_hook(refuse_past)
    if len(added):
        model.tricks = added
