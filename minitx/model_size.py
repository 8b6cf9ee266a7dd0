"""How much memory a model would take, against what the machine has: asked before anything is built."""

from __future__ import annotations

import os

import torch

from minitx.config.settings import ModelConfig, UserError

TRAINING_BYTES = 16
"""Of each parameter in training: the weight, its gradient and AdamW's two means, in float32."""


def require_memory(config: ModelConfig, vocab_size: int, device: torch.device, *, training: bool) -> None:
    """Raise `UserError` where the parameters alone, with what training keeps of each, need more than there is."""
    there = memory_there(device)
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


def memory_there(device: torch.device) -> int | None:
    """Bytes of memory that `device` has; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return None
