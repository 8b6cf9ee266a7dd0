"""Look into the heads of a model: run it on tokens with a recorder and score what it recorded."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minitx.attention import HeadAccess, Recorder
from minitx.data.token_files import Tokens
from minitx.heads.importance import gate_gradient
from minitx.heads.roles import Roles, roles
from minitx.heads.scores import SCORES, Floats, Patterns, chance, score_heads
from minitx.model import Transformer

MAX_SEQUENCES, MAX_SCORED_TOKENS, MAX_PATTERN_VALUES = 8, 256, 2**24
"""Bounds on the text that heads are scored on: sequences, tokens of each, and values of all patterns together."""
Precision = Callable[[], AbstractContextManager[object]]
"""Makes the context that a model computes in, such as an autocast."""


def patterns(model: Transformer, tokens: Tensor) -> NDArray[np.float32]:
    """The pattern of every head on tokens (batch, seq): (layer, batch, head, query, key); NaN for pruned heads."""
    return record(model, tokens)[0]


def record(model: Transformer, tokens: Tensor) -> tuple[NDArray[np.float32], Tensor]:
    """The `patterns` on tokens (batch, seq), and the residual (batch, seq, d_model) after the last block.

    Dropout is off, and the model is left as it was.
    """
    recorder, config, (batch, seq) = Recorder(), model.config, tokens.shape
    with torch.inference_mode():
        residual = model.residual(tokens.to(model.embedding.weight.device), heads=HeadAccess(recorder=recorder))
    array = np.full((config.n_layer, batch, config.n_head, seq, seq), np.nan, dtype=np.float32)
    for layer, pattern in recorder.patterns.items():
        array[layer, :, config.heads_in(layer)] = pattern.float().cpu().numpy().swapaxes(0, 1)
    return array, residual


def scored_text(model: Transformer, tokens: Tokens) -> Tensor:
    """The first sequences (batch, seq) of `tokens`, on which heads are scored; at least one of them."""
    config = model.config
    seq = min(config.context_length, MAX_SCORED_TOKENS, len(tokens))
    most = MAX_PATTERN_VALUES // (config.n_layer * config.n_head * seq * seq)
    batch = max(1, min(MAX_SEQUENCES, most, len(tokens) // seq))
    return torch.from_numpy(tokens[: batch * seq].astype(np.int64)).view(batch, seq)


@dataclass(frozen=True)
class Scored:
    """The scores of every head on a text, beside those of chance."""

    scores: dict[str, Floats]
    """Name → (layer, head): those of `SCORES`, and importance where it was asked for."""
    chance: dict[str, float]
    """Name → the score of a head that spreads its attention evenly; NaN for importance, which has none."""

    def judged_on(self, induction: Floats, by_chance: float) -> Self:
        """The same with the induction score on random tokens that come twice, which `roles` then goes by."""
        scores, chances = {"induction_on_repeats": induction}, {"induction_on_repeats": by_chance}
        return replace(self, scores=self.scores | scores, chance=self.chance | chances)

    def roles(self) -> Roles:
        """The role of every head: the verdict of `minitx heads`, of snapshots and of the Attention tab."""
        return roles(self.scores, self.chance)

    def role_names(self) -> list[list[str]]:
        """(layer, head): the roles as they are shown, such as "previous token"."""
        return [[name.replace("_", " ") for name in layer] for layer in self.roles().names.tolist()]


def score_text(
    model: Transformer,
    text: Tensor,
    pattern: Patterns | None = None,
    *,
    importance_tokens: int = 0,
    precision: Precision = nullcontext,
) -> Scored:
    """Score every head on `text` (batch, seq).

    pattern: (layer, batch, head, query, key) on this text, if the caller has it.
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
