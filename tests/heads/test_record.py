"""Recording does not change the model's output, and the scores come from the recorded patterns."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from minitx.attention import HeadAccess, Recorder
from minitx.config import ModelConfig
from minitx.heads.importance import gate_gradient
from minitx.heads.record import MAX_PATTERN_VALUES, patterns, record, score_text, scored_text
from minitx.heads.repeats import repeated_text, score_repetition
from minitx.heads.roles import roles
from minitx.heads.scores import SCORES, chance, score_heads
from minitx.model import Transformer
from tests.small import small_model

TEXT = torch.randint(0, 9, (2, 20), generator=torch.Generator().manual_seed(0))


def some_tokens(batch: int = 2, seq: int = 20) -> torch.Tensor:
    return torch.randint(0, 30, (batch, seq), generator=torch.Generator().manual_seed(1))


def test_a_pattern_for_every_layer_and_head() -> None:
    model, tokens = small_model(), some_tokens()
    found = patterns(model, tokens)
    assert found.shape == (2, 2, 2, 20, 20) and found.dtype == np.float32
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)
    assert (np.triu(found, 1) == 0).all()


def test_a_pruned_head_has_no_pattern_and_no_score() -> None:
    """The others keep their number; nothing warns of NaN."""
    model = Transformer(ModelConfig(n_layer=3, n_head=4, d_model=16, kept_heads=[[1, 3], [], [0]]), 30).eval()
    tokens, there = some_tokens(), np.array([[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]], dtype=bool)
    found = patterns(model, tokens)
    assert (~np.isnan(found)).all(axis=(1, 3, 4)).tolist() == there.tolist()
    recorder = Recorder()
    with torch.inference_mode():
        model(tokens, heads=HeadAccess(recorder=recorder))
    np.testing.assert_array_equal(found[0, :, [1, 3]], recorder.patterns[0].transpose(0, 1))
    for values in score_text(model, tokens).scores.values():
        assert (~np.isnan(values)).tolist() == there.tolist()


@pytest.mark.parametrize("training", [True, False])
def test_looking_leaves_the_model_as_it_was(training: bool) -> None:
    model, tokens = Transformer(ModelConfig(2, 2, d_model=16, context_length=32, dropout=0.5), 30), some_tokens()
    model.train(training)
    state = torch.get_rng_state()
    recorded, residual = record(model, tokens)
    assert recorded.shape == (2, 2, 2, 20, 20)
    assert torch.equal(residual, record(model, tokens)[1]), "dropout is off"
    assert all(module.training == training for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_scores_see_what_a_head_does() -> None:
    """A head whose keys and queries are made to match one position back, by rotary positions alone, scores as such."""
    model, tokens = small_model(), some_tokens()
    scores = score_text(model, tokens).scores
    assert all(values.shape == (2, 2) for values in scores.values())
    with torch.no_grad():  # a head without queries looks evenly: exactly the score of chance
        model.get_parameter("blocks.0.attention.query.weight").zero_()
    for name, values in score_text(model, tokens).scores.items():
        np.testing.assert_allclose(values[0], chance(tokens.numpy(), name), atol=1e-5)
        assert np.abs(values[1] - chance(tokens.numpy(), name)).max() > 1e-4


def test_scored_text_is_bounded() -> None:
    model = small_model()
    tokens = np.arange(32 * 20, dtype=np.uint16) % 30
    text = scored_text(model, tokens)
    assert text.shape == (8, 32) and text[0].tolist() == tokens[:32].tolist()
    assert scored_text(model, tokens[:50]).shape == (1, 32)
    assert scored_text(model, tokens[:9]).shape == (1, 9)
    assert text.numel() * 32 * 4 <= MAX_PATTERN_VALUES


def test_repeated_text_is_random_and_comes_twice() -> None:
    tokens = np.array([0, 5, 6, 7, 8, 9, 5, 6, 0], dtype=np.uint16)
    text = repeated_text(tokens, 100, n_sequences=20)
    assert text.shape == (20, 10) and torch.equal(text[:, :5], text[:, 5:])
    assert {tuple(sorted(row)) for row in text[:, :5].tolist()} == {(5, 6, 7, 8, 9)}
    assert len({tuple(row) for row in text.tolist()}) > 10
    assert torch.equal(text, repeated_text(tokens, 100, n_sequences=20))
    assert repeated_text(tokens, 7).shape == (8, 6)


def test_repeats_against_the_model_run_otherwise() -> None:
    model = small_model()
    tokens = np.random.default_rng(0).integers(0, 30, 300).astype(np.uint16)
    found, text = score_repetition(model, tokens), repeated_text(tokens, 32)
    with torch.no_grad():
        log_probabilities = model.double()(text).log_softmax(-1)
    model.float()
    losses = torch.stack([-log_probabilities[:, i].gather(1, text[:, i + 1 : i + 2])[:, 0] for i in range(31)], dim=1)
    assert found.first_loss == pytest.approx(losses[:, :15].mean().item(), abs=1e-5)
    assert found.second_loss == pytest.approx(losses[:, 16:].mean().item(), abs=1e-5)
    seen = patterns(model, text)
    diagonal = [[np.mean([seen[i, :, h, q, q - 15] for q in range(16, 32)]) for h in range(2)] for i in range(2)]
    np.testing.assert_allclose(found.induction, diagonal, atol=1e-5)
    assert found.chance == pytest.approx(np.mean([1 / (q + 1) for q in range(16, 32)]))
    short = score_repetition(model, tokens[:2])
    assert np.isnan(short.second_loss) and np.isnan(short.induction).all()


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
