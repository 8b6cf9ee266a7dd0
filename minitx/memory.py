"""How much memory a model would take, against what the machine has: asked before anything is built."""

from __future__ import annotations

import dataclasses
import os

import torch

from minitx.config import ModelConfig, UserError
from minitx.model import Transformer

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
    """Parameters of a model that is not built: counted on one or two layers that have shapes but no values.

    Heads that pruning removed are counted too.
    """
    counts = []
    for layers in (1, 2):
        with torch.device("meta"):
            model = Transformer(dataclasses.replace(config, n_layer=layers, kept_heads=None), vocab_size)
        counts.append(sum(parameter.numel() for parameter in model.parameters()))
    return counts[0] + (config.n_layer - 1) * (counts[1] - counts[0])


def memory_there(device: torch.device) -> int | None:
    """Bytes of memory that `device` has; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return None
