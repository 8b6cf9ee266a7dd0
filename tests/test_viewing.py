"""What a model does with a text, as a snapshot."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from minitx.config import TokenizerConfig
from minitx.heads import patterns
from minitx.snapshots import read_header, read_patterns
from minitx.tokenizer import Tokenizer
from minitx.viewing import probe_of, text_snapshot
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


def test_a_text_longer_than_the_context_is_cut(tokenizer: Tokenizer) -> None:
    model = small_model(tokenizer.vocab_size)
    tokens = tokenizer.encode("the cat sat on a mat and saw the dog")
    probe = probe_of(model, tokenizer, "…", tokens)
    assert len(probe.tokens) == model.config.context_length == 32 < len(tokens)
    assert (
        read_header(io.BytesIO(text_snapshot(model, tokenizer, [("…", tokens), ("a", tokens[:1])], 0)))["scores"] == {}
    )
