"""Tales as tokens: the places of labelled words, for tokenizers that cut words in different ways."""

from __future__ import annotations

import itertools
import re
from typing import Any, Literal, cast

import pytest

from minitx.data.tales.language import tales
from minitx.data.tales.tale import Label, Tale
from minitx.data.tokenizer import Tokenizer
from minitx.heads.places import Place, TaleBatch, place_tales
from tests.small import tale_tokenizer

TALES = list(itertools.islice(tales("validation", 1), 40))


def text_at(batch: TaleBatch, tokenizer: Tokenizer, place: Place, span: range) -> str:
    return tokenizer.decode(batch.tokens[place.row, span.start : span.stop].tolist())


def of_tales(batches: list[TaleBatch], tokenizer: Tokenizer) -> dict[str, list[tuple[TaleBatch, Place]]]:
    """The places of each text."""
    found: dict[str, list[tuple[TaleBatch, Place]]] = {tale.text: [] for tale in TALES}
    for batch in batches:
        for place in batch.places:
            found[tokenizer.decode(batch.tokens[place.row].tolist())].append((batch, place))
    return found


@pytest.mark.parametrize("kind", ["word", "char"])
def test_the_tokens_of_a_place_spell_the_labelled_words(kind: Literal["word", "char"]) -> None:
    """Counted without the end of document that begins a row, every place would be one token early."""
    tokenizer = tale_tokenizer(kind)
    places = of_tales(place_tales(TALES, tokenizer, 1000), tokenizer)
    for tale in TALES:
        for label, (batch, place) in zip(tale.labels, places[tale.text], strict=True):
            word, source, target = (tale.text[slice(*span)] for span in label[1:4])
            assert text_at(batch, tokenizer, place, place.queries).strip() == source
            assert text_at(batch, tokenizer, place, place.keys).strip() == target
            rest = text_at(batch, tokenizer, place, range(place.word, int(batch.lengths[place.row])))
            assert rest.lstrip() == tale.text[label.word[0] :] and rest.lstrip().startswith(word)
            assert place.right == batch.tokens[place.row, place.word] and place.kind == label.kind


def test_rivals_are_the_first_tokens_of_rivals() -> None:
    tokenizer = tale_tokenizer("word")
    places = of_tales(place_tales(TALES, tokenizer, 1000), tokenizer)
    for tale in TALES:
        for label, (_, place) in zip(tale.labels, places[tale.text], strict=True):
            known = {tokenizer.decode([rival]) for rival in place.rivals}
            whole = {f" {rival}" for rival in label.rivals if len(tokenizer.encode(f" {rival}")) == 1}
            if tokenizer.decode([place.right]) == f" {tale.text[slice(*label.word)]}":
                assert whole <= known and all(first.startswith(" ") for first in known)
            if "She" in label.rivals:  # begins no sentence of the tales: a space, and letters
                assert known == {" They"} or known == {" It"}


def test_a_rival_that_begins_like_the_right_word_leaves_no_choice() -> None:
    """In letters "was" and "were" begin alike: a wrong accuracy of 1 or 0 would follow."""
    tokenizer, seen = tale_tokenizer("char"), set()
    places = of_tales(place_tales(TALES, tokenizer, 1000), tokenizer)
    for tale in TALES:
        for label, (_, place) in zip(tale.labels, places[tale.text], strict=True):
            firsts = {rival[0] for rival in label.rivals}
            expected = set() if tale.text[label.word[0]] in firsts else firsts
            assert {tokenizer.decode([rival]) for rival in place.rivals} == expected
            seen.add((label.kind, bool(expected)))
    assert {("agreement", False), ("place", True)} <= seen


def test_tales_longer_than_the_context_are_left_out() -> None:
    tokenizer = tale_tokenizer("word")
    lengths = sorted(len(tokenizer.encode(tale.text)) + 2 for tale in TALES)
    context = lengths[len(lengths) // 2] - 1  # a model sees all tokens but the last
    batches = place_tales(TALES, tokenizer, context)
    found = [int(length) for batch in batches for length in batch.lengths]
    assert found == [length for length in lengths if length - 1 <= context] and 0 < len(found) < len(TALES)
    for batch in batches:
        for row, length in zip(batch.tokens.tolist(), batch.lengths, strict=True):
            assert set(row[length - 1 :]) == {tokenizer.end_of_document} == {row[0]}
            assert tokenizer.end_of_document not in row[1 : length - 1]
    assert place_tales(TALES, tokenizer, lengths[0] - 2) == []


class Joined:
    """A tokenizer with a token for "a red", and one for the space before "plum" alone."""

    end_of_document = 0

    def __init__(self) -> None:
        self.pieces = [b""]

    def encode(self, text: str) -> list[int]:
        found = [piece.encode() for piece in re.findall(r" a red| (?=plum)| ?\w+|\.", text)]
        self.pieces += [piece for piece in dict.fromkeys(found) if piece not in self.pieces]
        return [self.pieces.index(piece) for piece in found]

    def token_bytes(self, token: int) -> bytes:
        return self.pieces[token]


def test_labels_that_the_tokenizer_cannot_tell_apart_are_left_out() -> None:
    text = "Sara ate a red bun."
    ate, a, red, bun = (5, 8), (9, 10), (11, 14), (15, 18)
    labels = (
        Label("determiner", bun, red, a, ("buns",), (), False),
        Label("object", bun, red, ate, ("plum", "hat"), (), False),
    )
    tokenizer: Any = Joined()
    [batch] = place_tales([Tale(text, labels, 1.0)], cast(Tokenizer, tokenizer), 50)
    [place] = batch.places  # "a red" is one token: attention from "red" to "a" is none
    assert (place.kind, place.queries, place.keys, place.word) == ("object", range(3, 4), range(2, 3), 4)
    assert [tokenizer.token_bytes(rival) for rival in place.rivals] == [b" hat"]  # "plum" comes after a space token


def test_marks_belong_to_the_first_token_of_a_rival() -> None:
    """Where "bun." is one token, so is "hat.", and not "hat"."""
    text = "Sara ate a bun."
    label = Label("object", (11, 14), (9, 10), (5, 8), ("hat",), (), False)

    class Marked(Joined):
        def encode(self, text: str) -> list[int]:
            found = [piece.encode() for piece in re.findall(r" ?\w+\.?", text)]
            self.pieces += [piece for piece in dict.fromkeys(found) if piece not in self.pieces]
            return [self.pieces.index(piece) for piece in found]

    tokenizer: Any = Marked()
    [batch] = place_tales([Tale(text, (label,), 1.0)], cast(Tokenizer, tokenizer), 50)
    assert [tokenizer.token_bytes(token) for token in (batch.places[0].right, *batch.places[0].rivals)] == [
        b" bun.",
        b" hat.",
    ]
