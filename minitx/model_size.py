"""How much memory a model would take, against what the machine has: asked before anything is built."""

from __future__ import annotations

import dataclasses

import torch

from minitx.config import ModelConfig
from minitx.model import Transformer
from minitx.system.errors import UserError
from minitx.system.memory import total_memory

TRAINING_BYTES = 16
"""Of each parameter in training: the weight, its gradient and AdamW's two means, in float32."""


def require_memory(config: ModelConfig, vocab_size: int, device: torch.device, *, training: bool) -> None:
    """Raise `UserError` where the parameters alone, with what training keeps of each, need more than there is."""
    there = total_memory(device)
    needed = parameter_count(config, vocab_size) * (TRAINING_BYTES if training else 4)
    if there is not None and needed > there:
        raise UserError(
            f"A model of {config.n_layer:,} layers of width {config.d_model:,} needs about {needed / 1e9:,.1f} GB, but "
            f"this machine has {there / 1e9:,.1f} GB: lower model.n_layer, model.d_model or model.d_ff."
        )


def parameter_count(config: ModelConfig, vocab_size: int) -> int:
    """Parameters of a model that is not built; heads that pruning removed are counted too.

    Added up rather than built without values, for which torch would import its compiler: as long as all of torch.
    """
    width, heads_width, has_norm = config.d_model, config.n_head * config.d_head, config.qk_norm
    if config.attention == "latent":
        latent, rotary = config.latent_width, config.rotary_width
        attention = width * (heads_width + config.n_head * rotary + latent + rotary)  # query, compress, rotary key
        attention += 2 * latent * heads_width + heads_width * width + latent * has_norm  # key and value, output, norm
    else:
        attention = width * (heads_width + 2 * config.kv_heads * config.d_head)  # query, key and value
        attention += heads_width * width + 2 * config.d_head * has_norm  # output, norms
    block = attention + 3 * width * config.ff_width + 2 * width  # feed-forward layer, norms
    ends = (1 if config.tie_embeddings else 2) * vocab_size * width + width  # embedding, output, norm
    return config.n_layer * block + ends


def matrix_parameters(config: ModelConfig, vocab_size: int) -> int:
    """Parameters of the matrices alone: `parameter_count` without the vectors of the norms."""
    norms = (2 * config.n_layer + 1) * config.d_model  # beside those of queries and keys
    return parameter_count(dataclasses.replace(config, qk_norm=False), vocab_size) - norms


def parameters_by_part(model: Transformer) -> dict[str, int]:
    """Number of parameters of each part; a tied output layer counts as 0."""
    parts = {"embedding": 0, "attention": 0, "feed-forward": 0, "norms": 0, "output": 0}
    for name, parameter in model.named_parameters():  # a tied matrix is listed once, as the embedding
        part = "norms" if "norm" in name else next(part for part in parts if part.replace("-", "_") in name)
        parts[part] += parameter.numel()
    return parts


def cache_bytes_per_token(config: ModelConfig, bytes_per_value: int = 4) -> int:
    """Cache that one token takes: 2 · n_layer · n_kv_head · d_head values, or n_layer · (d_latent + d_rotary) in
    latent attention (DeepSeek-V2, table 1); of a pruned model, those of the key-value heads that are left."""
    layers = range(config.n_layer)
    if config.attention == "latent":
        values = sum(config.latent_width + config.rotary_width for layer in layers if config.heads_in(layer))
    else:
        values = sum(2 * len(config.kv_heads_in(layer)) * config.d_head for layer in layers)
    return values * bytes_per_value


def matmul_flops_per_token(model: Transformer, seq: int) -> int:
    """Floating-point operations of the matrix products in one token's forward pass, 2 per multiply and add.

    2 per weight of every matrix, and for attention 4 · n_layer · seq · n_head · d_head (scores and mix, the masked
    half counted too; Chowdhery et al. 2022, PaLM, appendix B), the scores of latent attention being d_rotary wider. A
    training step takes three times as many.
    """
    config = model.config
    heads = sum(len(config.heads_in(layer)) for layer in range(config.n_layer))
    key_width = config.d_head + (config.rotary_width if config.attention == "latent" else 0)
    weights = sum(p.numel() for p in model.blocks.parameters() if p.dim() == 2) + model.output.weight.numel()
    return 2 * weights + 2 * seq * heads * (key_width + config.d_head)
