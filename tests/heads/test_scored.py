"""Scores, chance and roles of a text, put together in one place."""

from __future__ import annotations

import math

import numpy as np
import torch

from minitx.heads.importance import gate_gradient
from minitx.heads.record import patterns
from minitx.heads.roles import roles
from minitx.heads.scored import score_text
from minitx.heads.scores import SCORES, chance, score_heads
from tests.small import small_model

TEXT = torch.randint(0, 9, (2, 20), generator=torch.Generator().manual_seed(0))


def test_a_text_has_scores_chance_and_roles() -> None:
    model = small_model()
    scored = score_text(model, TEXT)
    expected = score_heads(patterns(model, TEXT), TEXT.numpy())
    assert list(scored.scores) == list(scored.chance) == list(SCORES)
    for name, values in expected.items():
        np.testing.assert_array_equal(scored.scores[name], values)
        assert scored.chance[name] == chance(TEXT.numpy(), name)
    np.testing.assert_array_equal(scored.roles().names, roles(scored.scores, scored.chance).names)


def test_importance_is_measured_when_asked_for_and_has_no_chance() -> None:
    scored = score_text(small_model(), TEXT, importance_tokens=5)
    np.testing.assert_array_equal(scored.scores["importance"], gate_gradient(small_model(), TEXT[:, :5]))
    assert math.isnan(scored.chance["importance"])


def test_patterns_that_are_known_are_not_computed_again() -> None:
    diagonal = np.broadcast_to(np.eye(20, dtype=np.float32), (2, 2, 2, 20, 20))
    scored = score_text(small_model(), TEXT, diagonal)
    assert (scored.scores["current_token"] == 1).all()
    assert (scored.roles().names == "current_token").all()
