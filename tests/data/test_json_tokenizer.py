"""Tokenizers of other models against `AutoTokenizer` of `transformers`."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minitx.config import DataConfig, TokenizerConfig
from minitx.data.json_tokenizer import JsonTokenizer
from minitx.data.prepare import prepare
from minitx.system.errors import UserError
from tests.small import small_text

library = pytest.importorskip("tokenizers", reason="tokenizers comes with transformers, which is a test extra")
transformers = pytest.importorskip("transformers", reason="transformers is a test extra")

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
SPACES = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {"gpt2": None, "llama3": WORDS + SPACES, "qwen": WORDS.replace("{1,3}", "") + SPACES}
TRAINING = [
    small_text(60),
    "It didn't cost 12345 dollars; naïve “quotes” — 日本語 and émigrés.\n\n\tHello  world!\r\n",
] * 2
HARD = [
    "",
    " ",
    "a",
    "  two  spaces ",
    "\n\n \t\r\n",
    "The cat's HAT'S didn't, 'tis 1234567 €9,99!",
    "naïve café cafe\u0301 ﬁ",
    "日本語 한국어 עברית",
    "👩‍👩‍👧 \U0010ffff \x00\x07",
    "\u2581under▁line <s></s><unk><0x0A>",
    "x" * 400,
    "<|endoftext|> in a text <|endoftext|>",
    " the the the" * 30,
]


def byte_level(kind: str) -> Any:
    """A byte-level BPE tokenizer, trained here, as GPT-2, Llama 3 or Qwen cuts texts."""
    made = library.Tokenizer(library.models.BPE(ignore_merges=kind == "llama3"))
    letters = library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "gpt2")
    made.pre_tokenizer = letters
    if pattern := PATTERNS[kind]:
        split = library.pre_tokenizers.Split(library.Regex(pattern), "isolated")
        made.pre_tokenizer = library.pre_tokenizers.Sequence([split, letters])
    made.normalizer = library.normalizers.NFC() if kind == "qwen" else None
    made.decoder = library.decoders.ByteLevel()
    train(made, ["<|endoftext|>", "<|begin|>"])
    if kind == "llama3":
        start = ("<|begin|>", made.token_to_id("<|begin|>"))
        template = library.processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[start])
        made.post_processor = library.processors.Sequence([library.processors.ByteLevel(trim_offsets=False), template])
    return made


def llama_2() -> Any:
    """BPE on characters with ▁ for spaces, bytes for unknown ones, and <s> before a text."""
    made = library.Tokenizer(library.models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    of = library.normalizers
    made.normalizer = of.Sequence([of.Prepend("▁"), of.Replace(" ", "▁")])
    of = library.decoders
    made.decoder = of.Sequence([of.Replace("▁", " "), of.ByteFallback(), of.Fuse(), of.Strip(" ", 1, 0)])
    train(made, ["<unk>", "<s>", "<|endoftext|>"])
    content = json.loads(made.to_str())
    for byte in range(256):
        content["model"]["vocab"].setdefault(f"<0x{byte:02X}>", len(content["model"]["vocab"]))
    made = library.Tokenizer.from_str(json.dumps(content))
    made.post_processor = library.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return made


def train(made: Any, control: Sequence[str]) -> None:
    alphabet = library.pre_tokenizers.ByteLevel.alphabet() if made.pre_tokenizer else []
    trainer = library.trainers.BpeTrainer(
        vocab_size=500, special_tokens=[*control], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TRAINING, trainer)


MAKERS: dict[str, Callable[[], Any]] = {**{kind: partial(byte_level, kind) for kind in PATTERNS}, "llama2": llama_2}


def saved(kind: str, folder: Path) -> JsonTokenizer:
    """A tokenizer of ours, whose file and configuration are in `folder`."""
    MAKERS[kind]().save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return JsonTokenizer((folder / "tokenizer.json").read_bytes(), "<|endoftext|>", 1000)


@pytest.mark.parametrize("kind", MAKERS)
def test_ids_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    ours = saved(kind, tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in [*HARD, "\n".join(HARD), small_text(20)]:
        assert ours.encode(text) == theirs(text).input_ids, text
        alone = theirs(text, add_special_tokens=False).input_ids
        assert ours.encode_batch([text.encode(), b"x"])[0].tolist() == alone
    assert ours.end_of_document == theirs.eos_token_id
    assert ours.encode("<|endoftext|>")[-1] == ours.end_of_document
    with pytest.raises(UserError, match="lone surrogate"):
        ours.encode("\ud800")


@pytest.mark.parametrize("kind", MAKERS)
def test_bytes_of_tokens_are_those_of_the_text(kind: str, tmp_path: Path) -> None:
    """The first space is Llama 2's own, and control tokens have no bytes."""
    ours = saved(kind, tmp_path)
    for text in HARD:
        if "<" in text or (kind == "llama2" and "\u2581" in text):
            continue
        composed = text.replace("e\u0301", "é") if kind == "qwen" else text
        assert ours.decode(ours.encode(text)) == " " * (kind == "llama2" and text != "") + composed
    assert ours.token_text(ours.end_of_document) == "<|endoftext|>" and ours.token_bytes(ours.end_of_document) == b""
    assert ours.token_text(999) == "<999>" and ours.token_bytes(999) == b"" and ours.vocab_size == 1000
    [*pieces] = ours.token_labels(ours.encode("日語 \U0010ffff"))[-5:]
    assert pieces == ["␣", "·", "·", "·", "\\U0010ffff"] or pieces[-1] == "\\U0010ffff"
    parts = {ours.token_bytes(id) for id in ours.byte_tokens}
    assert parts >= {bytes([byte]) for byte in range(128, 256)} and all(len(part) == 1 for part in parts)


def test_a_text_is_prepared_with_the_tokenizer_of_another_model(tmp_path: Path) -> None:
    """The cached folder held a file that was read as a SentencePiece model."""
    ours, source = saved("llama3", tmp_path), tmp_path / "text.txt"
    source.write_text(small_text(50))
    for _ in range(2):
        prepared = prepare(
            DataConfig(source=str(source)), TokenizerConfig(), 1, progress=False, tokenizer_model=ours, workers=1
        )
        assert prepared.tokenizer is ours
        assert prepared.train[0] == prepared.val[-1] == ours.end_of_document
    text = ours.decode(np.concatenate((prepared.train, prepared.val)).tolist())
    assert text == small_text(50)
    assert ours.encode("x")[0] not in prepared.train


def test_what_it_cannot_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = byte_level("gpt2").to_str().encode()
    size = byte_level("gpt2").get_vocab_size()
    for content, end, count, sentence in (
        (b"", 0, 500, "no tokenizer that the library tokenizers reads .*: get a whole copy, or update it with 'pip"),
        (whole[:-100], 0, 500, "no tokenizer that"),
        (whole, "</s>", 500, "has no token '</s>'"),
        (whole, 0, size - 1, f"has tokens up to {size - 1}, but the model was made for {size - 1}"),
        (whole, size, size, f"has no token {size}, which"),
    ):
        with pytest.raises(UserError, match=sentence):
            JsonTokenizer(content, end, count, "file")
    words = library.Tokenizer(library.models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    words.decoder = library.decoders.WordPiece()
    with pytest.raises(UserError, match="decodes tokens by WordPiece, but minitx reads ByteLevel and Metaspace alone"):
        JsonTokenizer(words.to_str().encode(), 0, 2)
    draw = random.Random(1)
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        try:
            JsonTokenizer(bytes(damaged), 0, 500)
        except UserError as error:
            assert "\n" not in str(error)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UserError, match="needs the library tokenizers: install it with 'pip install tokenizers'"):
        JsonTokenizer(whole, 0, 500)
