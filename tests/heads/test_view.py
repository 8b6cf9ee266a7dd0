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
from minitx.heads.measure import measure_heads
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
    assert probe.dropped == len(tokens) - 32
    header = read_header(io.BytesIO(text_snapshot(model, tokenizer, [("…", tokens), ("a", tokens[:1])], 0)))
    assert header["scores"] == {} and [probe["dropped"] for probe in header["probes"]] == [probe.dropped, 0]


def test_each_probe_has_its_words_its_predictions_and_its_own_scores(tokenizer: Tokenizer) -> None:
    """Captions told the scores of validation text under a probe, and of the text itself under one's own."""
    model = small_model(tokenizer.vocab_size)
    tokens = np.array(tokenizer.encode(small_text(20)), np.uint16)
    header = read_header(
        io.BytesIO(view_probes(model, tokenizer, [config.Probe("the cat the hat.")], tokens).snapshot(7))
    )
    assert header["scored_on"] == "validation text"
    (probe,) = header["probes"]
    assert probe["words"] == [0, 3, 7, 11, 15]
    ids = torch.tensor([tokenizer.encode("the cat the hat.")])
    with torch.no_grad():
        likeliest = model(ids)[0].softmax(-1).max(dim=-1)
    assert [row[0] for row in probe["predictions"]["tokens"]] == [
        tokenizer.token_text(token) for token in likeliest.indices.tolist()
    ]
    assert [row[0] for row in probe["predictions"]["probabilities"]] == pytest.approx(
        likeliest.values.tolist(), rel=1e-3
    )
    expected = score_text(model, ids)
    for name, values in expected.scores.items():
        assert probe["scores"][name] == pytest.approx(values.ravel().tolist(), abs=1e-4)
    assert "importance" not in probe["scores"] and probe["roles"] == [
        role for layer in expected.role_names() for role in layer
    ]
    own = read_header(io.BytesIO(text_snapshot(model, tokenizer, [("the cat", tokenizer.encode("the cat"))], 3)))
    assert own["scored_on"] == "your text"
    assert own["probes"][0]["scores"]["entropy"] == pytest.approx(own["scores"]["entropy"], abs=1e-4)


def test_the_tab_and_minitx_heads_give_one_verdict(tokenizer: Tokenizer) -> None:
    """The tab said "unclassified" where `minitx heads` said "induction": it judged by the text's own repeats."""
    model, tokens = small_model(tokenizer.vocab_size), np.array(tokenizer.encode(small_text(20)), np.uint16)
    with torch.no_grad():  # sharper heads, so that some have a role
        for parameter in model.parameters():
            parameter.mul_(3)
    measured = measure_heads(model, tokens, ablation=False)
    header = read_header(io.BytesIO(view_probes(model, tokenizer, [config.Probe("the cat")], tokens).snapshot(7)))
    assert header["roles"] == [role.replace("_", " ") for role in measured.roles.names.ravel()]
    for name in ("induction_on_repeats", "induction", "previous_token"):
        assert header["scores"][name] == pytest.approx(measured.scores[name].ravel().tolist(), abs=1e-5)
        assert header["chance"][name] == pytest.approx(measured.chance[name], abs=1e-5)
