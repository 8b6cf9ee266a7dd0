"""The scores of a model's heads on a text, with chance and roles: `score_text`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from minitx.heads.importance import gate_gradient
from minitx.heads.record import patterns
from minitx.heads.roles import Roles, roles
from minitx.heads.scores import SCORES, Floats, chance, score_heads
from minitx.model import Transformer

Precision = Callable[[], AbstractContextManager[object]]
"""Makes the context that a model computes in, such as an autocast."""


@dataclass(frozen=True)
class Scored:
    """The scores of every head on a text, beside those of chance."""

    scores: dict[str, Floats]
    """Name → (layer, head): those of `SCORES`, and importance where it was asked for."""
    chance: dict[str, float]
    """Name → the score of a head that spreads its attention evenly; NaN for importance, which has none."""

    def roles(self) -> Roles:
        """The role of every head in this text."""
        return roles(self.scores, self.chance)


def score_text(
    model: Transformer,
    text: Tensor,
    pattern: NDArray[np.floating[Any]] | None = None,
    *,
    importance_tokens: int = 0,
    precision: Precision = nullcontext,
) -> Scored:
    """Score every head on `text` (batch, seq).

    pattern: (layer, batch, head, query, key) on this text, where it is known already.
    importance_tokens: also measure importance, on this many tokens of each sequence; 0 leaves it out.
    """
    tokens = text.numpy()
    by_chance = {name: chance(tokens, name) for name in SCORES}
    with precision():
        scores = score_heads(patterns(model, text) if pattern is None else pattern, tokens)
    if importance_tokens:
        with precision():  # a new context: autocast caches weights of inference mode, which have no gradient
            scores["importance"] = gate_gradient(model, text[:, :importance_tokens])
        by_chance["importance"] = np.nan
    return Scored(scores, by_chance)
