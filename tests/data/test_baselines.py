"""xz and the byte n-gram: their figures are those of the tool and of a slow loop, and probabilities sum to one."""

from __future__ import annotations

import lzma
import math
from collections import defaultdict
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from minitx.config import DataConfig, TokenizerConfig
from minitx.data import baselines
from minitx.data.baselines import (
    best_order,
    grams_of,
    levels_of,
    ngram_bits_per_byte,
    probabilities,
    texts,
    xz_bits_per_byte,
)
from minitx.data.prepare import prepare
from minitx.system.errors import UserError
from tests.small import small_text

TRAIN, VAL = b"the cat sat on the mat, the dog sat on the log. " * 3 + b"a cat, a dog", b"the cog sat on a mat.\xff"


def slow_probability(train: bytes, order: int, context: bytes, byte: int) -> float:
    """Interpolated Kneser–Ney by dictionaries and recursion."""
    grams = {train[i : i + order] for i in range(len(train) - order + 1)}
    counts: list[dict[bytes, int]] = [defaultdict(int) for _ in range(order + 1)]
    for i in range(len(train) - order + 1):
        counts[order][train[i : i + order]] += 1
    for length in range(order - 1, 0, -1):
        for gram in grams:
            counts[length][gram[1:]] += 1
        grams = {gram[1:] for gram in grams}

    def lost(length: int, count: int) -> float:
        n = [list(counts[length].values()).count(number) for number in range(5)]
        if min(n[1:]) > 0:
            y = n[1] / (n[1] + 2 * n[2])
            found = [1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]]
            if min(found) > 0:
                return found[min(count, 3) - 1]
        return [0.5, 1.0, 1.5][min(count, 3) - 1]

    def probability(length: int) -> float:
        if length == 0:
            return 1 / 256
        before = context[len(context) - length + 1 :]
        after = {gram[-1]: count for gram, count in counts[length].items() if gram[:-1] == before}
        shorter = probability(length - 1)
        if not after:
            return shorter
        rest = sum(lost(length, count) for count in after.values()) * shorter
        count = after.get(byte, 0)
        return ((count - lost(length, count) if count else 0) + rest) / sum(after.values())

    return probability(order)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_the_n_gram_is_that_of_a_slow_loop(order: int) -> None:
    text = TRAIN + VAL
    probability = [
        slow_probability(TRAIN, order, text[: len(TRAIN) + i][-(order - 1) :] if order > 1 else b"", byte)
        for i, byte in enumerate(VAL)
    ]
    expected = -sum(map(math.log2, probability)) / len(VAL)
    assert ngram_bits_per_byte(TRAIN, VAL, order) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("text", [TRAIN, TRAIN + bytes(range(256)), np.random.default_rng(0).bytes(4000)])
@pytest.mark.parametrize("context", [b"on th", b"zzzzz", b" \xff the"[-5:], b"s\xe2at "])
def test_probabilities_sum_to_one(text: bytes, context: bytes) -> None:
    grams = np.concatenate([grams_of(context + bytes([byte]), 6) for byte in range(256)])
    found = probabilities(levels_of(text, 6), grams)
    assert found.min() > 0
    assert found.sum() == pytest.approx(1, abs=1e-12)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ngram_bits_per_byte(TRAIN, VAL)
    monkeypatch.setattr(baselines, "BLOCK", 5)
    assert ngram_bits_per_byte(TRAIN, VAL) == pytest.approx(whole, rel=1e-12)


def test_a_longer_memory_learns_more() -> None:
    assert ngram_bits_per_byte(TRAIN, TRAIN, 6) < ngram_bits_per_byte(TRAIN, TRAIN, 2) < 8


def test_training_text_alone_chooses_the_order() -> None:
    by_order = [ngram_bits_per_byte(TRAIN[:140], TRAIN[140:], order) for order in range(1, 9)]
    assert len(TRAIN) * 9 // 10 == 140
    assert best_order(TRAIN) == 1 + by_order.index(min(by_order)) > 1
    assert ngram_bits_per_byte(TRAIN, VAL) == ngram_bits_per_byte(TRAIN, VAL, best_order(TRAIN))


def test_xz_is_what_the_tool_adds() -> None:
    preset = 9 | lzma.PRESET_EXTREME
    random = np.random.default_rng(0).bytes(3000)
    added = len(lzma.compress(random + VAL, preset=preset)) - len(lzma.compress(random, preset=preset))
    assert xz_bits_per_byte(random, VAL) == 8 * added / len(VAL)
    assert xz_bits_per_byte(random, random) < 0.2 < 7.9 < xz_bits_per_byte(random, random[::-1])


def test_only_the_end_of_a_long_text_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = ngram_bits_per_byte(TRAIN[-40:], VAL), xz_bits_per_byte(TRAIN[-40:], VAL)
    monkeypatch.setattr(baselines, "MAX_TRAIN_BYTES", 40)
    assert (ngram_bits_per_byte(TRAIN, VAL), xz_bits_per_byte(TRAIN, VAL)) == expected


@pytest.mark.parametrize("type", ["char", "word"])
def test_both_texts_come_back_from_their_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, type: Literal["char", "word"]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file, text = tmp_path / "text.txt", small_text() + "é \u2581 日"
    file.write_text(text, "utf-8")
    prepared = prepare(DataConfig(str(file)), TokenizerConfig(type, 400), 1, progress=False)
    train, val = texts(prepared)
    assert (len(train), len(val)) == (prepared.train_bytes, prepared.val_bytes)
    assert train + val == text.encode()
    monkeypatch.setattr(baselines, "BLOCK", 7)
    monkeypatch.setattr(baselines, "MAX_TRAIN_BYTES", 30)
    end, again = texts(prepared)
    assert again == val
    assert train.endswith(end) and 20 < len(end) <= 30  # end of document is a token, but no byte


def test_texts_too_short() -> None:
    with pytest.raises(UserError, match="too short for an n-gram"):
        ngram_bits_per_byte(b"abc", VAL, 4)
    with pytest.raises(UserError, match="order of an n-gram is 9"):
        ngram_bits_per_byte(TRAIN, VAL, 9)
    with pytest.raises(UserError, match="validation text is empty"):
        xz_bits_per_byte(TRAIN, b"")
