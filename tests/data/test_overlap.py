"""The share of the validation text that stands in training is what a plain search finds, and 0 for python-docs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.config import DataConfig
from minitx.data import overlap
from minitx.data.overlap import STRETCH, share_in_training
from minitx.data.sources import Piece, read
from minitx.data.split import held_out
from minitx.data.spool import cut

Documents = list[tuple[str, str]]
"""Split and text of each."""


def share(documents: Documents, size: int = 1 << 16) -> float:
    """`share_in_training` on documents in pieces of at most `size` characters."""

    def pieces() -> Iterator[tuple[str, Piece]]:
        return ((split, piece) for split, text in documents for piece in cut(iter([Piece(text, True)]), size))

    return share_in_training(pieces)


def letters(count: int, seed: int) -> str:
    return "".join(random.Random(seed).choices("abcdefgh é日", k=count))


splits = st.sampled_from(["train", "val"])
texts = st.text("ab\n日", min_size=1, max_size=30)  # sources leave empty documents out


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(st.sampled_from(["train", "val"]), texts)), texts, texts, st.integers(1, 9), st.integers(2, 6)
)
def test_a_plain_search_finds_the_same(drawn: Documents, a: str, b: str, size: int, stretch: int) -> None:
    documents = [("val", a), *drawn, ("train", b)]
    train = [text + "|" * (stretch - len(text) % stretch) for split, text in documents if split == "train"]
    looked_up: list[str] = []
    for text in (text for split, text in documents if split == "val"):
        whole = [text[i : i + stretch] for i in range(0, len(text) - stretch + 1, stretch)]
        looked_up += whole or [text.ljust(stretch, "|")]
    sizes = {True: 0, False: 0}
    for part in looked_up:
        sizes[any(part in other for other in train)] += len(part.rstrip("|"))
    with mock.patch.multiple(overlap, STRETCH=stretch, MAX_CHARACTERS=8):
        assert share(documents, size) == sizes[True] / sum(sizes.values())


def test_a_planted_copy_is_found_wherever_it_stands() -> None:
    """Across the borders of pieces and blocks; a near copy is none."""
    val, near = letters(2000, 1), letters(2000, 1)[1000:1199] + "?"
    train = letters(99_990, 2) + val[400:800] + letters(77_777, 3) + near + letters(500, 4)
    assert share([("train", letters(5000, 5)), ("val", val), ("train", train)]) == 0.2
    assert share([("val", val), ("train", letters(5000, 5))]) == 0
    assert share([("val", val), ("train", "x" + val)]) == 1


def test_short_documents_are_compared_as_a_whole() -> None:
    assert share([("val", "abc"), ("val", "d"), ("train", "abcx"), ("train", "d")]) == 0.25


@pytest.fixture(scope="module")
def documents() -> list[str]:
    return [piece.text for piece in read(DataConfig(), "train", 1)]


def test_nothing_that_validates_on_python_docs_stands_in_training(documents: list[str]) -> None:
    for seed in range(4):
        validates = held_out([*map(len, documents)], 0.1, seed)
        splits = [("val" if i in validates else "train", text) for i, text in enumerate(documents)]
        assert share(splits) == 0


def test_no_two_documents_of_python_docs_share_a_stretch(documents: list[str]) -> None:
    """At any place of both; found by plain slices."""
    owner: dict[int, int] = {}
    for number, text in enumerate(documents):
        for start in range(len(text) - STRETCH + 1):
            assert owner.setdefault(hash(text[start : start + STRETCH]), number) == number, text[start : start + 400]
