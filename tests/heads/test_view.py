"""Snapshots of what a model does with a text."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from minitx import config
from minitx.config import TokenizerConfig
from minitx.data.tokenizer import Tokenizer
from minitx.heads.importance import gate_gradient, survey
from minitx.heads.record import patterns, score_text, scored_text
from minitx.heads.snapshots import read_header
from minitx.heads.view import IMPORTANCE_TOKENS, probe_of, text_snapshot, view_probes
from tests.heads.test_snapshots import read_patterns
from tests.small import small_model, small_text


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([small_text(50)], TokenizerConfig(type="char"))


def test_the_snapshot_of_a_text_holds_its_patterns_and_scores(tokenizer: Tokenizer) -> None:
    model = small_model(tokenizer.vocab_size)
    tokens = tokenizer.encode("the cat")
    content = text_snapshot(model, tokenizer, [("the cat", tokens)], step=3)
    header = read_header(io.BytesIO(content))
    assert header["step"] == 3
    assert header["probes"][0]["tokens"] == ["t", "h", "e", "␣", "c", "a", "t"]
    expected = patterns(model, torch.tensor([tokens]))[:, 0]
    np.testing.assert_allclose(read_patterns(content), expected, atol=0.004)
    head = expected[1, 0]  # layer 1, head 0; its score is entry 1 * n_head + 0
    by_hand = np.mean([head[i, i - 1] for i in range(1, 7)])
    assert header["scores"]["previous_token"][2] == pytest.approx(by_hand, abs=1e-5)
    matters = survey(model, np.array(tokens)).gradient  # of the text's own next tokens
    assert header["scores"]["importance"] == pytest.approx(matters.ravel().tolist(), rel=1e-3)


def test_probes_are_seen_with_what_the_heads_score_on_another_text(tokenizer: Tokenizer) -> None:
    model = small_model(tokenizer.vocab_size)
    tokens = np.array(tokenizer.encode(small_text(20)), np.uint16)
    link = config.Link("subject", (8, 11), (4, 7))
    view = view_probes(model, tokenizer, [config.Probe("the cat sat.", (link,)), config.Probe("rain", ())], tokens)
    header = read_header(io.BytesIO(view.snapshot(7)))
    assert [probe["text"] for probe in header["probes"]] == ["the cat sat.", "rain"]
    assert header["probes"][0]["links"] == [{"name": "subject", "query": [8, 11], "key": [4, 7]}]
    text = scored_text(model, tokens)
    for name, values in score_text(model, text).scores.items():
        np.testing.assert_allclose(view.scores[name], values)
    np.testing.assert_allclose(view.scores["importance"], gate_gradient(model, text[:, :IMPORTANCE_TOKENS]))
    assert header["chance"]["importance"] is None and len(header["roles"]) == 4


def test_scores_can_be_computed_in_training_s_precision(tokenizer: Tokenizer) -> None:
    """One autocast around both would hand weights of inference mode to the pass back."""
    model, tokens = small_model(tokenizer.vocab_size), np.array(tokenizer.encode(small_text(20)), np.uint16)
    probes = [config.Probe("the cat sat.")]
    exact = view_probes(model, tokenizer, probes, tokens)
    rough = view_probes(model, tokenizer, probes, tokens, lambda: torch.autocast("cpu", dtype=torch.bfloat16))
    for name, values in exact.scores.items():
        np.testing.assert_allclose(rough.scores[name], values, rtol=0.05, atol=0.01, err_msg=name)
    assert not np.array_equal(rough.scores["importance"], exact.scores["importance"])
    np.testing.assert_array_equal(rough.probes[0].patterns, exact.probes[0].patterns)


def test_a_text_longer_than_the_context_is_cut(tokenizer: Tokenizer) -> None:
    model = small_model(tokenizer.vocab_size)
    tokens = tokenizer.encode("the cat sat on a mat and saw the dog")
    probe = probe_of(model, tokenizer, "…", tokens)
    assert len(probe.tokens) == model.config.context_length == 32 < len(tokens)
    assert (
        read_header(io.BytesIO(text_snapshot(model, tokenizer, [("…", tokens), ("a", tokens[:1])], 0)))["scores"] == {}
    )
