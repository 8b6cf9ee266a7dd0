"""The share of the validation text that stands in training is what a plain search finds, and 0 for python-docs."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.data import overlap
from minitx.data.builtin import python_docs
from minitx.data.overlap import STRETCH, compare_splits
from minitx.data.sources import Piece
from minitx.data.split import held_out
from minitx.data.spool import cut

Documents = list[tuple[str, str]]
"""Split and text of each."""


def compared(documents: Documents, size: int = 1 << 16) -> tuple[str, float]:
    """`compare_splits` on documents in pieces of at most `size` characters."""

    def pieces() -> Iterator[tuple[str, Piece]]:
        return ((split, piece) for split, text in documents for piece in cut(iter([Piece(text, True)]), size))

    return compare_splits(pieces)


def letters(count: int, seed: int) -> str:
    return "".join(random.Random(seed).choices("abcdefgh é日", k=count))


texts = st.text("ab\n日", min_size=1, max_size=30)  # sources leave empty documents out


@settings(deadline=None, max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(["train", "val"]), texts)), texts, st.integers(1, 9), st.integers(1, 6))
def test_a_plain_search_finds_the_same(documents: Documents, first: str, size: int, stretch: int) -> None:
    documents = [("val", first), *documents]
    train = [text for split, text in documents if split == "train"]
    digest, all_characters, found = hashlib.sha256(), 0, 0
    for text in (text for split, text in documents if split == "val"):
        digest.update(text.encode() + b"\xff")
        wanted = [text[i : i + stretch] for i in range(0, len(text) - stretch + 1, stretch)]
        all_characters += len("".join(wanted) or text)
        found += sum(len(part) for part in wanted if any(part in other for other in train))
        if not wanted and any(text == (other if len(other) < stretch else other[1 - stretch :]) for other in train):
            found += len(text)
    with mock.patch.multiple(overlap, STRETCH=stretch, MAX_CHARACTERS=8):
        assert compared(documents, size) == (digest.hexdigest(), found / max(1, all_characters))


def test_a_planted_copy_is_found_wherever_it_stands() -> None:
    """Across the borders of pieces and blocks, and a near copy is none."""
    val = letters(2000, 1)
    near = val[1000:1199] + "?"
    train = letters(99_990, 2) + val[400:800] + letters(77_777, 3) + near + letters(500, 4)
    digest, share = compared([("train", letters(5000, 5)), ("val", val), ("train", train)])
    assert share == 0.2
    assert digest == hashlib.sha256(val.encode() + b"\xff").hexdigest()
    assert compared([("train", letters(5000, 5)), ("val", val)])[1] == 0
    assert compared([("val", val), ("train", "x" + val)])[1] == 1


def test_short_documents_are_compared_as_a_whole() -> None:
    assert compared([("val", "abc"), ("val", "d"), ("train", "xabc"), ("train", "d")])[1] == 0.25


@pytest.fixture(scope="module")
def documents() -> list[str]:
    return list(python_docs())


def test_nothing_that_validates_on_python_docs_stands_in_training(documents: list[str]) -> None:
    for seed in (1337, *range(10)):
        validates = held_out([*map(len, documents)], 0.1, seed)
        splits = [("val" if i in validates else "train", text) for i, text in enumerate(documents)]
        assert compared(splits)[1] == 0


def test_no_two_documents_of_python_docs_share_a_stretch(documents: list[str]) -> None:
    """At any place of both; found by plain slices."""
    owner: dict[int, int] = {}
    for number, text in enumerate(documents):
        for start in range(len(text) - STRETCH + 1):
            assert owner.setdefault(hash(text[start : start + STRETCH]), number) == number, text[start : start + 400]
