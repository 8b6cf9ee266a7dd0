"""Loss and induction scores on random tokens that come twice."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from minitx.data.token_files import Tokens
from minitx.heads.importance import token_losses
from minitx.heads.record import record
from minitx.heads.scores import Floats, chance, score_heads, spread_over_texts
from minitx.model import Transformer


def repeated_text(tokens: Tokens, most: int, n_sequences: int = 8) -> Tensor:
    """(batch, seq): a random sequence of distinct tokens, twice: the only pattern to learn from is the repetition.

    The first token of `tokens` is not used: in a split it ends documents. seq is `most`, or less where the distinct
    tokens are too few. Every call returns the same.
    """
    random, distinct = np.random.default_rng(0), np.unique(tokens[tokens != tokens[0]]).astype(np.int64)
    half = np.stack([random.permutation(distinct)[: most // 2] for _ in range(n_sequences)])
    return torch.from_numpy(np.concatenate([half, half], axis=1))


class Repeats(NamedTuple):
    """Losses and scores on `repeated_text`, which reveal induction heads (Olsson et al. 2022)."""

    first_loss: float
    """Nats per token on the first half; NaN where the context is too short."""
    second_loss: float
    """On the second half, which can be looked up in the first."""
    induction: Floats
    """(layer, head): the induction score; every token of the second half has one place to look at."""
    spread: Floats
    """Its standard deviation over the texts."""
    chance: float


def score_repetition(model: Transformer, tokens: Tokens, *, only_induction: bool = False) -> Repeats:
    """The loss and the induction scores on `repeated_text`, made of the tokens in `tokens`.

    only_induction: leave out the losses and the spread, which take longer; they are NaN then.
    """
    nan, unknown = float("nan"), np.full((model.config.n_layer, model.config.n_head), np.nan)
    text = repeated_text(tokens, min(model.config.context_length, 128))
    half = text.size(1) // 2
    if half < 2:
        return Repeats(nan, nan, unknown, unknown, nan)
    recorded, residual = record(model, text)
    texts = text.numpy()
    induction, by_chance = score_heads(recorded, texts, ["induction"])["induction"], chance(texts, "induction")
    if only_induction:
        return Repeats(nan, nan, induction, unknown, by_chance)
    with torch.inference_mode():
        losses = token_losses(model, residual[:, :-1], text[:, 1:].to(residual.device))  # (batch, seq - 1)
    first, second = float(losses[:, : half - 1].mean()), float(losses[:, half:].mean())
    return Repeats(first, second, induction, spread_over_texts(recorded, texts, ["induction"])["induction"], by_chance)
