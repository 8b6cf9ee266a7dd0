"""The tokenizer loses nothing, treats no text as control tokens, and equal texts give equal models."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.config import TokenizerConfig
from minitx.data.tokenizer import Tokenizer
from minitx.system.errors import UserError

TEXT = Path(random.__file__).read_text(encoding="utf-8")[:20000] + "\nété — 日本!\n\n" * 3
TRICKY = [
    "<s>",
    "</s>",
    "<unk>",
    "<|endoftext|>",
    "<0x0A>",
    "▁",
    "▁▁ ▁",
    "a▁b",
    " ",
    "  x ",
    "\n\n",
    "\r\n",
    "\0",
    "\t",
]
TRICKY += ["\u2028\x85\x0c", "\ufeff", "\ufffd", "▅", "⁇", "ﬁ e\u0301 é", "\U0010ffff", "👩‍👩‍👧", "<0xE2><0x96><0x81>"]
KINDS = {
    "unigram": TokenizerConfig("unigram", 500),
    "bpe": TokenizerConfig("bpe", 500),
    "char": TokenizerConfig("char", None),
    "word": TokenizerConfig("word", 500),
}
TOKENIZERS = {kind: Tokenizer.train([TEXT], config) for kind, config in KINDS.items()}
kinds = st.sampled_from(sorted(TOKENIZERS))
anything = st.text(st.characters(exclude_categories=["Cs"]))


@settings(deadline=None, max_examples=300)
@given(kinds, st.one_of(anything, st.lists(st.sampled_from([*TRICKY, "cat ", "\n"])).map("".join)))
def test_decode_inverts_encode(kind: str, text: str) -> None:
    tokenizer = TOKENIZERS[kind]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.end_of_document not in ids
    assert all(0 <= i < tokenizer.vocab_size for i in ids)


@settings(deadline=None, max_examples=200)
@given(kinds, st.data())
def test_the_bytes_of_tokens_joined_are_what_decode_reads(kind: str, data: st.DataObject) -> None:
    """Of any tokens, also where they end in the middle of a character: generation shows text by it."""
    tokenizer = TOKENIZERS[kind]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1)))
    joined = b"".join(tokenizer.token_bytes(i) for i in ids)
    assert tokenizer.decode(ids) == joined.decode("utf-8", "replace")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TRICKY)
def test_text_is_never_control_even_where_it_was_trained_on(kind: str, text: str) -> None:
    tokenizer = Tokenizer.train([TEXT + f"{text} {text}{text}\n" * 50], KINDS[kind])
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not {0, tokenizer.end_of_document} & set(ids)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_texts_give_equal_models_and_files_hold_them(kind: str, tmp_path: Path) -> None:
    again = Tokenizer.train(iter([TEXT]), KINDS[kind])
    assert again.proto == TOKENIZERS[kind].proto
    again.save(tmp_path / "tokenizer.model")
    assert Tokenizer.load(tmp_path / "tokenizer.model").digest == again.digest


@pytest.mark.parametrize("kind", KINDS)
def test_a_line_has_the_same_tokens_wherever_it_stands(kind: str) -> None:
    """The sums of scores before it decided by their rounding, in which order "   " became "  " and " "."""
    tokenizer, before = TOKENIZERS[kind], TEXT[:5000].rpartition("\n")[0] + "\n"
    lines = [" " * width + text for width in range(40) for text in ("", "return x", "|")]
    ids = [tokenizer.encode(line) for line in lines]
    for line, expected in zip(lines, ids, strict=True):
        assert tokenizer.encode(before + line)[-len(expected) :] == expected or not expected
    joined = [[*line, *tokenizer.encode("\n")] for line in ids * 20]
    assert tokenizer.encode("".join(f"{line}\n" for line in lines * 20)) == [i for line in joined for i in line]


def test_lines_do_not_merge() -> None:
    for tokenizer in TOKENIZERS.values():
        tokens = [tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)]
        assert [t for t in tokens if b"\n" in t] == [b"\n", b"\n"]  # the byte token and the symbol


def test_char_has_a_token_for_every_character() -> None:
    text = "ab\tc\nd ▅é日\r\u2028<"
    tokenizer = Tokenizer.train([text[:5], text[5:]], KINDS["char"])
    assert len(tokenizer.encode(text)) == len(text)
    assert len(tokenizer.encode("ж")) == 2  # its bytes
    assert Tokenizer.train(["\n\n"], KINDS["char"]).decode([2]) == "\n"


TALE = ["Once a fox didn't jump.\n", 'The brand-new "fox’s" dog saw 12 foxes, 3 of them_all.\n']


def test_a_word_is_one_token_with_a_space_before_it_and_without() -> None:
    tokenizer = Tokenizer.train(TALE, TokenizerConfig("word", 65536))
    words = ["Once", "a", "fox", "didn't", "jump", "The", "brand-new", "fox’s", "dog", "12", "foxes", "of", "them_all"]
    for word in [*words, *'.",']:
        assert [len(tokenizer.encode(text)) for text in (word, f" {word}")] == [1, 1], word
    lines = ["The fox  didn't\tjump, dog.", 'Once\n(foxes brand-new) of"them_all" a-dog']
    tokens = [[tokenizer.token_bytes(i).decode() for i in tokenizer.encode(line)] for line in lines]
    assert tokens[0] == ["The", " fox", " ", " didn't", "\t", "jump", ",", " dog", "."]
    assert tokens[1][:5] == ["Once", "\n", "(", "foxes", " brand-new"]
    assert tokens[1][5:] == [")", " of", '"', "them_all", '"', " a", "-", "dog"]


def test_an_unknown_word_becomes_characters_and_bytes() -> None:
    tokenizer = Tokenizer.train(TALE, TokenizerConfig("word", 65536))
    assert [tokenizer.token_text(i) for i in tokenizer.encode(" hжs")] == ["␣", "h", "<0xD0>", "<0xB6>", "s"]


def test_vocab_size_cuts_the_rarest_words_and_is_no_minimum() -> None:
    words = [f"{a}{b}" for a in "abcdefgh" for b in "uvwxyz"]
    texts = [f" {word}" * (100 - i) for i, word in enumerate(words)]
    few, all_ = (Tokenizer.train(texts, TokenizerConfig("word", size)) for size in (300, 65536))
    fixed = 260 + 14  # bytes, control, line break and space; letters
    assert few.vocab_size == 300 and all_.vocab_size == fixed + 2 * len(words)
    assert [word for word in words if len(few.encode(f" {word}")) == 1] == words[: 300 - fixed]
    assert Tokenizer.train(["\n"], KINDS["word"]).vocab_size == 260
    many = "".join(chr(0x4E00 + i) for i in range(2000))
    assert Tokenizer.train([many], KINDS["word"]).vocab_size == 500


@pytest.mark.parametrize("kind", KINDS)
def test_space_survives_where_training_saw_none_or_next_to_none(kind: str) -> None:
    unspaced = TEXT.replace(" ", "")
    for text in (unspaced, unspaced * 3 + "a b"):
        tokenizer = Tokenizer.train([text], replace(KINDS[kind], vocab_size=400))
        assert tokenizer.decode(tokenizer.encode(" a  b ")) == " a  b "


def test_batches_and_bytes() -> None:
    tokenizer = TOKENIZERS["unigram"]
    texts = [TEXT, "", "a▁b▁▁", "▁", "日本 ▁"]
    arrays = tokenizer.encode_batch([text.encode() for text in texts])
    assert [array.tolist() for array in arrays] == [tokenizer.encode(text) for text in texts]
    assert all(array.dtype == np.int32 for array in arrays)
    assert b"".join(tokenizer.token_bytes(i) for i in tokenizer.encode(TEXT)) == TEXT.encode()
    assert tokenizer.token_bytes(tokenizer.end_of_document) == b""


def test_labels() -> None:
    tokenizer = TOKENIZERS["char"]
    label = {text: [tokenizer.token_text(i) for i in tokenizer.encode(text)] for text in ("\n", " ", "c", "ж")}
    assert label == {"\n": ["↵"], " ": ["␣"], "c": ["c"], "ж": ["<0xD0>", "<0xB6>"]}
    assert tokenizer.token_text(tokenizer.end_of_document) == "<|endoftext|>"
    odd = Tokenizer.train(["a\x1b\x85\xa0\u202e\U000e0001"], KINDS["char"])
    labels = [odd.token_text(i) for i in odd.encode("\x1b\x85\xa0\u202e\U000e0001")]
    assert labels == ["\\x1b", "\\x85", "\\xa0", "\\u202e", "\\U000e0001"]


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_vocabulary_that_does_not_fit(kind: str) -> None:
    with pytest.raises(UserError, match=r"vocab_size is 60000, but the text yields at most (\d+)") as error:
        Tokenizer.train([TEXT], TokenizerConfig(kind, 60000))  # type: ignore[arg-type]  # drawn from the literals
    largest = int(str(error.value).split("at most ")[1].split()[0])
    assert Tokenizer.train([TEXT], TokenizerConfig(kind, largest)).vocab_size == largest  # type: ignore[arg-type]
    many = "".join(chr(0x4E00 + i) for i in range(2000))
    with pytest.raises(UserError, match=r"needs 22\d\d or more"):
        Tokenizer.train([many], TokenizerConfig(kind, 1000))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="fewer than the 300 needed: take --tokenizer.type char,"):
        Tokenizer.train(["a"], TokenizerConfig(kind, 300))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="nothing but line breaks"):
        Tokenizer.train(["\n"], TokenizerConfig(kind, 300))  # type: ignore[arg-type]


def test_long_line_trains() -> None:
    assert Tokenizer.train([TEXT.replace("\n", " ") * 20], KINDS["bpe"]).vocab_size == 500


def test_what_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    proto = TOKENIZERS["bpe"].proto
    for content in (b"", b"hello", random.Random(0).randbytes(4000), proto[: len(proto) // 2]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"tokenizer\.model"):
            Tokenizer.load(path)
    with pytest.raises(UserError, match="cannot be read"):
        Tokenizer.load(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"U\+D800"):
        TOKENIZERS["bpe"].encode("ab\ud800")
