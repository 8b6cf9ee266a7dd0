"""Look into the heads of a model: run it on tokens with a recorder and score what it recorded."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minitx.attention import HeadAccess, Recorder
from minitx.config import ModelConfig
from minitx.model import Transformer, evaluating

MAX_SCORED_TOKENS, MAX_PATTERN_VALUES = 256, 2**24
"""Bounds on the text that heads are scored on: tokens of a sequence, and values of all patterns together."""


def record(model: Transformer, tokens: Tensor, *, want_shares: bool = False) -> Recorder:
    """What every head does on tokens (batch, seq), with dropout off; the model is left as it was."""
    recorder = Recorder(want_shares=want_shares)
    with evaluating(model), torch.inference_mode():
        model.residual(tokens.to(model.embedding.weight.device), heads=HeadAccess(recorder=recorder))
    return recorder


def patterns(model: Transformer, tokens: Tensor) -> NDArray[np.float32]:
    """The pattern of every head on tokens (batch, seq): (layer, batch, head, query, key); NaN for pruned heads."""
    return all_heads(record(model, tokens), model.config, *tokens.shape)


def all_heads(recorder: Recorder, config: ModelConfig, batch: int, seq: int) -> NDArray[np.float32]:
    """Recorded patterns as one array (layer, batch, head, query, key); NaN for pruned heads."""
    array = np.full((config.n_layer, batch, config.n_head, seq, seq), np.nan, dtype=np.float32)
    for layer, pattern in recorder.patterns.items():
        array[layer, :, config.heads_in(layer)] = pattern.float().cpu().numpy().swapaxes(0, 1)
    return array


def scored_text(model: Transformer, tokens: NDArray[np.unsignedinteger], n_sequences: int = 8) -> Tensor:
    """The sequences (batch, seq) at the start of `tokens` that the heads of `model` are scored on: as many as
    `n_sequences`, fewer where the text is short or the patterns would take too much memory."""
    config = model.config
    seq = min(config.context_length, MAX_SCORED_TOKENS, len(tokens))
    batch = min(n_sequences, MAX_PATTERN_VALUES // (config.n_layer * config.n_head * seq * seq), len(tokens) // seq)
    batch = max(1, batch)
    return torch.from_numpy(tokens[: batch * seq].astype(np.int64)).view(batch, seq)
