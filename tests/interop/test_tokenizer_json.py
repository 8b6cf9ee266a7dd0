"""The exported tokenizer.json gives the ids that minitx gives, for every text, alone and inside `transformers`."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.config import ModelConfig, TokenizerConfig
from minitx.data.tokenizer import MAX_LINE, Tokenizer
from minitx.interop.hf import export_folder
from minitx.interop.tokenizer_json import tokenizer_files
from minitx.model import Transformer
from tests.data.test_tokenizer import KINDS, TEXT, TOKENIZERS, TRICKY, anything, kinds

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers comes with transformers, a test extra")
transformers = pytest.importorskip("transformers", reason="transformers is a test extra")

BARE = Tokenizer.train([TEXT.replace("<", "(").replace("x", "")], TokenizerConfig("unigram", 400))
"""Has no token for < or x, of which the names of byte tokens are made."""
ALL = {**TOKENIZERS, "bare": BARE}
THEIRS = {
    name: tokenizers.Tokenizer.from_str(json.dumps(tokenizer_files(ours)["tokenizer.json"]))
    for name, ours in ALL.items()
}
SPACES = st.lists(st.sampled_from(["  ", " ", "\n", "==", "=", "-", "return", "<0x41>", "x"])).map("".join)


def check(kind: str, text: str) -> None:
    expected, theirs = ALL[kind].encode(text), THEIRS[kind]
    assert theirs.encode(text).ids == expected, (kind, text[:200])
    assert theirs.decode(expected) == text


@settings(deadline=None, max_examples=400)
@given(
    kinds | st.just("bare"),
    st.one_of(anything, st.lists(st.sampled_from([*TRICKY, "cat ", "\n"])).map("".join), SPACES),
)
def test_ids_are_equal_for_every_text(kind: str, text: str) -> None:
    check(kind, text)


@pytest.mark.parametrize("kind", ALL)
def test_ids_are_equal_for_long_texts(kind: str) -> None:
    """In float32, rounding decided between equal splits of spaces, so 2 % of passages from Python's documentation
    differed."""
    draw = random.Random(0)
    for _ in range(200):
        start = draw.randrange(len(TEXT))
        check(kind, " " * draw.randrange(40) + TEXT[start : start + draw.choice([50, 500, 5000])])
    line = TEXT.replace("\n", " ")
    for text in (TEXT * 2, line * 2, "日x" * MAX_LINE, "é" * MAX_LINE + "\n" + " ▁" * MAX_LINE + " a", "👩‍👩‍👧" * 5000):
        check(kind, text)


def test_a_model_that_cannot_be_followed_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AutoTokenizer must fail rather than give other ids; without any tokenizer, it made an empty one."""
    monkeypatch.setattr("minitx.data.tokenizer.scores_on_grid", lambda proto: proto)  # as before tokenizer.json
    old = Tokenizer.train([TEXT], KINDS["unigram"])
    for qk_norm in (True, False):
        model = Transformer(ModelConfig(n_layer=1, n_head=2, d_model=16, qk_norm=qk_norm), old.vocab_size)
        folder = tmp_path / str(qk_norm)
        assert not export_folder(model, old, folder)
        assert not (folder / "tokenizer.json").exists()
        with pytest.raises((ValueError, OSError)):
            transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_takes_it_from_text_to_text(kind: str, tmp_path: Path) -> None:
    ours, text = TOKENIZERS[kind], "".join(TRICKY) + "  a  <|endoftext|>\n"
    torch.manual_seed(0)
    model = Transformer(ModelConfig(n_layer=1, n_head=2, d_model=16), ours.vocab_size).eval()
    assert export_folder(model, ours, tmp_path / "exported")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "exported")
    theirs.save_pretrained(tmp_path / "saved")
    for tokenizer in (theirs, transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")):
        assert tokenizer(text).input_ids == ours.encode(text)
        assert tokenizer.decode(ours.encode(text)) == text
        assert len(tokenizer) == ours.vocab_size and tokenizer.eos_token_id == ours.end_of_document
        assert tokenizer.decode([ours.end_of_document, *ours.encode("a")], skip_special_tokens=True) == "a"
    pipeline = transformers.pipeline("text-generation", model=str(tmp_path / "exported"), device="cpu")
    (answer,) = pipeline(" a\n  ▁b", max_new_tokens=4, do_sample=False, return_tensors=True)
    assert answer["generated_token_ids"][: len(ours.encode(" a\n  ▁b"))] == ours.encode(" a\n  ▁b")
    (answer,) = pipeline(" a\n  ▁b", max_new_tokens=1, do_sample=False)
    assert answer["generated_text"].startswith(" a\n  ▁b")
