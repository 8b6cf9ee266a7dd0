"""What a model predicts at every position of a text: the likeliest next tokens, and the loss of the real one."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minitx.data.tokenizer import Tokenizer
from minitx.heads.importance import ROWS
from minitx.model import Transformer

LIKELIEST = 5
"""Next tokens that are kept for each position."""


@torch.inference_mode()
def predict_next(
    model: Transformer, tokenizer: Tokenizer, tokens: Sequence[int], residual: Tensor
) -> dict[str, list[Any]]:
    """The predictions after each of `tokens`, from their residual (seq, d_model) after the last block, as plain data.

    tokens: [position][5], the labels of the likeliest next tokens; probabilities: [position][5]; real: [position],
    which of the five comes next, or None; loss: [position], that of the real next token in nats. The last position has
    no real one, and what is not finite is None.
    """
    targets = torch.tensor([*tokens[1:], 0], device=residual.device)
    found: dict[str, list[Any]] = {"tokens": [], "probabilities": [], "real": [], "loss": []}
    for rows, real in zip(model.final_norm(residual).split(ROWS), targets.split(ROWS), strict=True):
        log_probabilities = model.output(rows).float().log_softmax(dim=-1)  # (row, token)
        likeliest = log_probabilities.topk(min(LIKELIEST, model.vocab_size))
        found["tokens"] += [[tokenizer.token_text(token) for token in row] for row in likeliest.indices.tolist()]
        found["probabilities"] += [list(map(_short, row)) for row in likeliest.values.exp().tolist()]
        pairs = zip(likeliest.indices.tolist(), real.tolist(), strict=True)
        found["real"] += [row.index(token) if token in row else None for row, token in pairs]
        found["loss"] += map(_short, (-log_probabilities.gather(1, real[:, None])[:, 0]).tolist())
    found["loss"][-1] = found["real"][-1] = None
    return found


def _short(value: float) -> float | None:
    """Four digits, which take the least room; None for what is not finite."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
