"""Weights from one place to another are those of the whole pattern, though only some rows are read."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest

from minitx.heads.snapshot_rows import head_weights
from minitx.heads.snapshots import ShownProbe, encode, read_header
from minitx.system.errors import UserError
from tests.heads.test_snapshots import patterns, read_patterns

SEQS = (9, 70, 5)  # a long text lies between two short ones


def content() -> bytes:
    """Two layers of three heads on three texts; head 4 was removed by pruning."""
    probes = []
    for seq in SEQS:
        weights = patterns(2, 3, seq, seed=seq)
        weights[1, 1] = np.nan
        probes.append(ShownProbe("a text", ["t"] * seq, weights))
    return encode(1, probes)


def asked(stored: bytes, *question: Any) -> Any:
    file = io.BytesIO(stored)
    return head_weights(file, read_header(file), *question)


@pytest.mark.parametrize("probe", range(3))
def test_weights_are_the_mean_over_the_query_and_the_sum_over_the_key(probe: int) -> None:
    stored, seq = content(), SEQS[probe]
    whole = read_patterns(stored, probe)
    for query, key in ((range(4, 5), range(2, 3)), (range(seq - 2, seq), range(1, 4)), (range(2, 4), range(seq))):
        expected = [
            math.fsum(whole[layer, head, q, k] for q in query for k in key) / len(query)
            for layer in range(2)
            for head in range(3)
        ]
        found = asked(stored, probe, query, key)
        assert math.isnan(found[4])
        assert np.delete(found, 4) == pytest.approx(np.delete(expected, 4), abs=1e-6)


def test_without_a_key_it_is_the_strongest_before_the_word_but_the_first() -> None:
    """Neither the attention sink nor the word itself is a link."""
    weights = np.zeros((1, 2, 4, 4), np.float32)
    weights[..., 0] = 1
    weights[0, 0, 3] = [0.5, 0.1, 0.15, 0.25]
    weights[0, 1, 2:] = [[0.2, 0.3, 0.5, 0], [0.1, 0.1, 0.2, 0.6]]
    stored = encode(1, [ShownProbe("a", list("abcd"), weights)])
    assert asked(stored, 0, range(3, 4), None) == pytest.approx([0.15, 0.2], abs=0.01)
    assert asked(stored, 0, range(2, 4), None) == pytest.approx([0.05, 0.2], abs=0.01)  # the mean over both pieces
    assert np.isnan(asked(stored, 0, range(1, 2), None)).all()


def test_of_words_it_is_the_strongest_word() -> None:
    """Its tokens add up; without words in the file, tokens are words."""
    weights = np.zeros((1, 2, 5, 5), np.float32)
    weights[..., 0] = 1
    weights[0, :, 4] = [[0.1, 0.3, 0.25, 0.35, 0], [0.1, 0.2, 0.2, 0.5, 0]]
    for words, expected in (([0, 1, 3, 4], [0.55, 0.5]), ([], [0.35, 0.5]), ([0, 2, 4], [0.6, 0.7]), ([0, 4], None)):
        stored = encode(1, [ShownProbe("a", list("abcde"), weights, words=words)])
        file = io.BytesIO(stored)
        found = head_weights(file, read_header(file), 0, range(4, 5), None, is_of_words=True)
        assert np.isnan(found).all() if expected is None else found == pytest.approx(expected, abs=0.01)


def test_tokens_that_the_text_lacks_and_spans_too_long_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for probe, query, key in (
        (0, range(8, 10), None),
        (0, range(2, 2), None),
        (0, range(2), range(9, 10)),
        (3, range(1), None),
    ):
        with pytest.raises(UserError, match="This (text|snapshot) has no"):
            asked(content(), probe, query, key)
    monkeypatch.setattr("minitx.heads.snapshot_rows.MAX_ROW_BYTES", 100)
    with pytest.raises(UserError, match="too long"):
        asked(content(), 1, range(69, 70), None)


def test_a_damaged_pattern_is_told() -> None:
    with pytest.raises(UserError, match="damaged"):
        asked(content()[:-1] + b"\x07", 2, range(4, 5), None)
