"""Predictions at every position, against the model run otherwise and a loop in float64."""

from __future__ import annotations

import math

import pytest
import torch

from minitx.config import TokenizerConfig
from minitx.data.tokenizer import Tokenizer
from minitx.heads.predictions import LIKELIEST, predict_next
from minitx.heads.record import record
from minitx.model import Transformer
from tests.small import small_model, small_text

TOKENIZER = Tokenizer.train([small_text(50)], TokenizerConfig(type="char"))


def predicted(model: Transformer, tokens: list[int]) -> dict[str, list]:  # type: ignore[type-arg]  # as JSON
    return predict_next(model, TOKENIZER, tokens, record(model, torch.tensor([tokens]))[1][0])


def test_predictions_equal_a_loop_in_float64() -> None:
    model, tokens = small_model(TOKENIZER.vocab_size), TOKENIZER.encode("the cat sat on a mat")
    found = predicted(model, tokens)
    with torch.no_grad():
        logits = model.double()(torch.tensor([tokens]))[0].tolist()
    assert found["loss"][-1] is found["real"][-1] is None and all(
        len(values) == len(tokens) for values in found.values()
    )
    for position, row in enumerate(logits):
        total = sum(math.exp(value) for value in row)
        order = sorted(range(len(row)), key=lambda token: -row[token])[:LIKELIEST]
        assert found["tokens"][position] == [TOKENIZER.token_text(token) for token in order]
        expected = [math.exp(row[token]) / total for token in order]
        assert found["probabilities"][position] == pytest.approx(expected, rel=2e-3)
        if position + 1 < len(tokens):
            real = tokens[position + 1]
            assert found["real"][position] == (order.index(real) if real in order else None)
            loss = math.log(total) - row[tokens[position + 1]]
            assert found["loss"][position] == pytest.approx(loss, rel=2e-3)


def test_a_model_that_failed_predicts_nothing() -> None:
    model = small_model(TOKENIZER.vocab_size)
    with torch.no_grad():
        model.output.weight.fill_(float("nan"))
    found = predicted(model, TOKENIZER.encode("cat"))
    assert found["loss"] == [None] * 3 and found["probabilities"] == [[None] * LIKELIEST] * 3


def test_a_long_text_is_predicted_in_parts() -> None:
    """300 positions, more than the logits of which are computed at once."""
    model = small_model(TOKENIZER.vocab_size)
    tokens = [3] * 300
    residual = torch.randn(300, model.config.d_model)
    found = predict_next(model, TOKENIZER, tokens, residual)
    alone = predict_next(model, TOKENIZER, [3, 3], residual[298:])
    assert found["tokens"][298:] == alone["tokens"] and found["loss"][298:] == alone["loss"]
