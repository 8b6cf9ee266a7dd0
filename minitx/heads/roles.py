"""Scores of a head → the role that it fits, or unclassified."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from minitx.heads.scores import Floats

ROLES = ("current_token", "previous_token", "first_token", "first_mention", "duplicate_token", "induction")
"""Scores that are a share of the attention, so that a head can be named after one; of equals the first, so that a first
mention, which is a duplicate as well, comes before it."""
MIN_STRENGTH = 0.5
"""Half of the attention that chance leaves over: what a head has to spend on one thing to be named after it."""
UNCLASSIFIED = "unclassified"


def strength(score: float, by_chance: float) -> float:
    """(score - chance) / (1 - chance): of the attention that even spreading would put elsewhere, the share that the
    head puts here; 1 is all of it, 0 is chance, NaN where either is."""
    return (score - by_chance) / (1 - by_chance) if by_chance < 1 else float("nan")


def role(scores: Mapping[str, float], by_chance: Mapping[str, float]) -> tuple[str, float]:
    """The role that a head's scores fit best and how strongly: the one of `ROLES` of greatest `strength`, or
    "unclassified" where that is below `MIN_STRENGTH` (of attention, Clark et al. 2019 ask for over half, too)."""
    strengths = {name: strength(scores[name], by_chance[name]) for name in ROLES}
    best = max(ROLES, key=lambda name: -np.inf if np.isnan(strengths[name]) else strengths[name])
    return (best if strengths[best] >= MIN_STRENGTH else UNCLASSIFIED), strengths[best]


def roles(scores: Mapping[str, Floats], by_chance: Mapping[str, float]) -> list[list[str]]:
    """The `role` of every head of scores (layer, head), in words."""
    layers, heads = next(iter(scores.values())).shape
    return [
        [role({n: float(v[i, j]) for n, v in scores.items()}, by_chance)[0].replace("_", " ") for j in range(heads)]
        for i in range(layers)
    ]
