"""The role that a head's scores fit, such as induction, or unclassified."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from minitx.heads.scores import Floats

ROLES = ("current_token", "previous_token", "first_token", "first_mention", "duplicate_token", "induction")
"""Scores that are a share of the attention. The first of equals wins: every first mention is a duplicate as well."""
MIN_STRENGTH = 0.5
"""A head has a role if it spends on it this share of the attention that chance leaves over."""
UNCLASSIFIED = "unclassified"


class Roles(NamedTuple):
    """The role of every head, (layer, head), and how strongly the head has it."""

    names: NDArray[np.str_]
    strengths: Floats
    """That of the role which fits best, also where it is too weak to name; NaN where no score is known."""


def strength(score: Floats, by_chance: float) -> Floats:
    """(score - chance) / (1 - chance): 0 is chance and 1 all of the attention; NaN where either is."""
    return (score - by_chance) / (1 - by_chance) if by_chance < 1 else np.full_like(score, np.nan)


def roles(scores: Mapping[str, Floats], chance: Mapping[str, float]) -> Roles:
    """For every head the one of `ROLES` with the greatest `strength`, "unclassified" below `MIN_STRENGTH`.

    Induction is judged by "induction_on_repeats" where that is known, on random tokens that come twice, as in the
    literature: the repeats of a text often go on otherwise. Clark et al. 2019 ask for over half of the attention, too.
    """
    induction = "induction_on_repeats" if "induction_on_repeats" in scores else "induction"
    judged_by = [induction if name == "induction" else name for name in ROLES]
    strengths = np.stack([strength(scores[name], chance[name]) for name in judged_by])  # (role, layer, head)
    best = np.where(np.isnan(strengths), -np.inf, strengths).argmax(axis=0)
    greatest = np.take_along_axis(strengths, best[None], axis=0)[0]
    return Roles(np.where(greatest >= MIN_STRENGTH, np.array(ROLES)[best], UNCLASSIFIED), greatest)
