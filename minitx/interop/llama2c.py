"""Export to llama2.c: a model and a vocabulary in the files that its run.c reads.

The model's format is its legacy "version 0": seven int32, then float32 matrices, one kind after the other for all
layers. run.c rotates neighbouring components of a head. minitx rotates component i of the first half with component i
of the second, so rows of query and key matrices change places.
"""

import struct
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from minitx.model import Transformer
from minitx.system.errors import require

START = 1
"""The token that run.c starts with; it also ends a text."""
EPSILON, THETA = 1e-5, 10000.0
"""Built into run.c."""
BLOCK_PARTS = (
    "attention_norm",
    "attention.query",
    "attention.key",
    "attention.value",
    "attention.output",
    "feed_forward_norm",
    "feed_forward.gate",
    "feed_forward.down",
    "feed_forward.up",
)
"""In the order of the file."""


def interleaved(weight: Tensor, d_head: int) -> Tensor:
    """A query or key matrix, (head * d_head, d_model), with rows that rotate together side by side."""
    halves = weight.view(-1, 2, d_head // 2, weight.size(1))  # (head, half, component, d_model)
    return halves.transpose(1, 2).reshape(weight.shape)


@torch.no_grad()
def export_weights(model: Transformer, file: Path) -> None:
    """Write the model for run.c; raises UserError for another architecture than run.c has built in."""
    config = model.config
    require(
        config.attention == "multi_head" and not config.qk_norm and config.kept_heads is None and not config.tricks,
        "llama2.c runs Llama's architecture alone: no query-key norm, no latent attention, no pruned heads, no tricks.",
    )
    is_plain = config.d_head * config.n_head == config.d_model and config.rope_scaling is None
    require(is_plain, "llama2.c has heads of width d_model / n_head, and no rope_scaling.")
    require(
        config.norm_eps == EPSILON and config.rope_theta == THETA,
        f"llama2.c has norm_eps {EPSILON} and rope_theta {THETA} built in, but the model has {config.norm_eps} and "
        f"{config.rope_theta}.",
    )
    weights = dict(model.named_parameters())
    with file.open("wb") as out:
        sizes = (config.d_model, config.ff_width, config.n_layer, config.n_head, config.kv_heads)
        vocab = model.vocab_size if config.tie_embeddings else -model.vocab_size  # negative: with an output matrix
        out.write(struct.pack("<7i", *sizes, vocab, config.context_length))
        put(out, weights["embedding.weight"])
        for part in BLOCK_PARTS:
            for layer in range(config.n_layer):
                weight: Tensor = weights[f"blocks.{layer}.{part}.weight"]
                if part in ("attention.query", "attention.key"):
                    weight = interleaved(weight, config.d_head)
                put(out, weight)
        put(out, weights["final_norm.weight"])
        put(out, torch.zeros(config.context_length, config.d_head))  # two tables of angles that run.c no longer reads
        if not config.tie_embeddings:
            put(out, weights["output.weight"])


def put(out: BinaryIO, weight: Tensor) -> None:
    """Append a matrix as little-endian float32."""
    out.write(weight.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes())


def export_vocabulary(vocab_size: int, file: Path) -> None:
    """Write a tokenizer file for run.c; the piece of a token is its number and a line break."""
    with file.open("wb") as out:
        pieces = [f"{token}\n".encode() for token in range(vocab_size)]
        out.write(struct.pack("<i", max(map(len, pieces))))
        for piece in pieces:
            out.write(struct.pack("<fi", 0.0, len(piece)) + piece)
