"""Words and labels come from the bytes of tokens, however a tokenizer cuts the text."""

from __future__ import annotations

import itertools

import pytest

from minitx.config import TokenizerConfig
from minitx.data.tokenizer import Tokenizer
from minitx.data.words import label, labels, spelled_out, word_starts

WORDS = [
    "The", " dog-house", " didn't", " fall", ",", ' "', "well", '"', ".", "\n", " ", " Say", " 3", ".", "14", " 日",
    "本", "語", "カ", " تَعَلَّم", " naïve", " 👩\u200d👧", "❤️", "👍🏽", " snake_case", " it’s", "'", " -", "x", "\t",
]  # fmt: skip
TEXT = "".join(WORDS)
KINDS: dict[str, TokenizerConfig] = {
    "unigram": TokenizerConfig("unigram", 312),
    "bpe": TokenizerConfig("bpe", 350),
    "char": TokenizerConfig("char"),
    "word": TokenizerConfig("word", 65536),
}


def words_of(pieces: list[bytes]) -> list[str]:
    starts = [*word_starts(pieces), len(pieces)]
    return [b"".join(pieces[a:b]).decode() for a, b in itertools.pairwise(starts)]


def test_words_of_bytes_and_of_characters() -> None:
    assert words_of([bytes([byte]) for byte in TEXT.encode()]) == WORDS
    assert words_of([character.encode() for character in TEXT]) == WORDS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_known", [True, False])
def test_no_tokenizer_hides_a_word(kind: str, is_known: bool) -> None:
    """Also with a tokenizer that was trained on another text, which cuts this one into bytes."""
    learned = TEXT * 20 if is_known else "a plain English text, which has none of this.\n" * 20
    tokenizer = Tokenizer.train([learned], KINDS[kind] if is_known else TokenizerConfig("char"))
    pieces = [tokenizer.token_bytes(token) for token in tokenizer.encode(TEXT)]
    owner = [number for number, word in enumerate(WORDS) for _ in word.encode()]
    place, expected, before = 0, [], -1
    for number, piece in enumerate(pieces):
        inside = [place + i for i, byte in enumerate(piece) if byte != 32] or [place]
        if owner[inside[0]] != before:
            expected.append(number)
        place, before = place + len(piece), owner[inside[0]]
    assert word_starts(pieces) == expected
    if kind == "char":
        assert words_of(pieces) == WORDS


def test_a_token_belongs_to_the_word_of_its_first_byte_that_is_no_space() -> None:
    assert word_starts([b"a", b" ", b"b", b". c", b"d"]) == [0, 1, 3, 4]  # the space is of b
    assert word_starts([b"", b"a", b"b", b"", b""]) == [0, 1, 3, 4]  # ends of documents
    assert word_starts([b"   ", b"a"]) == [0, 1]
    assert word_starts([b"\xe6\x97"]) == [0]  # cut within a character
    assert word_starts([]) == []


def test_a_character_of_several_tokens_stands_on_its_last() -> None:
    assert labels([b" the", b"\n", *(bytes([byte]) for byte in " م😀é".encode())]) == [
        "␣the", "↵", "␣", "·", "م", "·", "·", "·", "😀", "·", "é",
    ]  # fmt: skip
    assert labels([b"\xd9", b"a", b"\xf0", b"\x9f", b"\xe6", b"\x97"]) == [
        "<0xD9>", "a", "<0xF0>", "<0x9F>", "<0xE6>", "<0x97>",
    ]  # fmt: skip
    assert labels([b"", b"\t"]) == ["", "⇥"]
    assert label("\x1b\u202e") == "\\x1b\\u202e"


def test_the_tokenizer_labels_control_tokens_by_their_names() -> None:
    tokenizer = Tokenizer.train(["abc"], KINDS["char"])
    ids = [tokenizer.end_of_document, *tokenizer.encode("aж")]
    assert tokenizer.token_labels(ids) == ["<|endoftext|>", "a", "·", "ж"]
    assert [tokenizer.token_text(token) for token in ids[2:]] == ["<0xD0>", "<0xB6>"]


def test_words_that_are_no_tokens_are_named() -> None:
    """A name at the start has no token where the training text never begins with it."""
    tokenizer = Tokenizer.train(["the cat and Anna so saw the dog. "] * 50, KINDS["word"])

    def named(text: str) -> list[str]:
        return spelled_out([tokenizer.token_bytes(token) for token in tokenizer.encode(text)])

    assert named("the Zebra saw Anna, a\nжук and a Zebra") == ["Zebra", "жук"]
    assert named("zq, Bob's Thomsopon") == ["zq", "Bob's", "Thomsopon"]
    assert named("the cat saw Anna. 12345 ?! 日本 🎉") == []
    assert spelled_out([]) == []
