"""Preparing and batching: exact splits, whole text back, whole folders only, every window once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx import data as data_module
from minitx.config import DataConfig, TokenizerConfig, UserError
from minitx.data import (
    Batches,
    Prepared,
    TokenWriter,
    check_length,
    held_out,
    prepare,
    read_tokens,
    rechunk,
    validation_windows,
)
from minitx.sources import Piece
from minitx.tokenizer import Tokenizer

ROOT = Path(__file__).parents[1]
SHAKESPEARE = ROOT.parent / "shared" / "data" / "tinyshakespeare.txt"
CHAR = TokenizerConfig("char", None)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "minitx"


def source(folder: Path, texts: list[str]) -> DataConfig:
    path = folder / "text.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return DataConfig(str(path))


def documents(prepared: Prepared, split: str) -> list[str]:
    """The documents of a split, from its tokens by splitting at end of document."""
    tokens = getattr(prepared, split).tolist()
    end = prepared.tokenizer.end_of_document
    assert tokens[0] == end
    assert tokens[-1] == end
    bounds = [i for i, token in enumerate(tokens) if token == end]
    return [prepared.tokenizer.decode(tokens[a + 1 : b]) for a, b in pairwise(bounds)]


def test_shakespeare_is_split_where_everybody_splits_it() -> None:
    if not SHAKESPEARE.exists():
        pytest.skip("tinyshakespeare.txt is not beside the repository")
    prepared = prepare(DataConfig(str(SHAKESPEARE)), CHAR, 1, progress=False)
    assert (prepared.train_bytes, prepared.val_bytes) == (1003854, 111540)
    assert (len(prepared.train), len(prepared.val)) == (1003854 + 2, 111540 + 2)
    text = SHAKESPEARE.read_bytes().decode()
    assert documents(prepared, "train") + documents(prepared, "val") == [text[:1003854], text[1003854:]]


@pytest.mark.parametrize("fraction", [0.1, 0.37, 0.5])
def test_position_split_is_exact_across_documents_and_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fraction: float
) -> None:
    monkeypatch.setattr(data_module, "CHUNK", 7)
    texts = ["été\r\n" * 9, "a", " \n", "日本語" * 10, "x" * 21]
    prepared = prepare(replace(source(tmp_path, texts), val_fraction=fraction), CHAR, 1, progress=False)
    train, val = documents(prepared, "train"), documents(prepared, "val")
    whole = "".join(texts)
    left = int((1 - fraction) * len(whole))
    assert ("".join(train), "".join(val)) == (whole[:left], whole[left:])
    assert prepared.train_bytes == len(whole[:left].encode())
    assert (prepared.train_documents, prepared.val_documents) == (len(train), len(val))


def test_document_split(tmp_path: Path) -> None:
    texts = [f"document {i}\n  of many\n" for i in range(200)]
    config = source(tmp_path, texts)
    one, two = (prepare(config, CHAR, seed, progress=False) for seed in (1, 2))
    train, val = documents(one, "train"), documents(one, "val")
    assert sorted(train + val) == sorted(texts)
    assert train == [text for text in texts if text in set(train)]
    assert 5 <= len(val) <= 40
    assert documents(two, "val") != val
    assert one.fingerprint == two.fingerprint
    by_position = prepare(replace(config, split_by="position"), CHAR, 1, progress=False)
    assert "".join(documents(by_position, "train") + documents(by_position, "val")) == "".join(texts)


def test_held_out_depends_on_seed_and_index_alone() -> None:
    many = held_out(5000, 0.1, 3)
    assert 400 < many.sum() < 600
    few = held_out(1000, 0.1, 3)
    assert (few != many[:1000]).sum() <= 2  # each side's one certain document
    for seed in range(20):
        assert held_out(2, 0.01, seed).sum() == 1
        assert held_out(5, 0.99, seed).sum() < 5


def test_cache_follows_what_it_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    config = source(tmp_path, ["some text of a certain length\n" * 20, "more of it"])
    first = prepare(config, CHAR, 1, progress=False)
    assert [path.name for path in cache.iterdir()] == [first.folder.name]
    with monkeypatch.context() as patch:
        patch.setattr(data_module, "_build", None)  # calling it would fail
        assert prepare(config, CHAR, 1, progress=False).folder == first.folder
        assert prepare(config, CHAR, 1, progress=False, tokenizer_model=first.tokenizer).folder == first.folder
    other = Tokenizer.train(["other"], CHAR)
    reused = prepare(config, CHAR, 1, progress=False, tokenizer_model=other)
    assert reused.folder != first.folder
    assert reused.tokenizer.digest == other.digest
    assert documents(reused, "train") == documents(first, "train")
    changed = prepare(source(tmp_path, ["other text\n" * 50]), CHAR, 1, progress=False)
    assert changed.fingerprint != first.fingerprint
    (changed.folder / "val.bin").write_bytes(b"damaged")
    assert len(prepare(source(tmp_path, ["other text\n" * 50]), CHAR, 1, progress=False).val) > 2


def test_fingerprint_tells_documents_apart(tmp_path: Path) -> None:
    prints = {prepare(source(tmp_path, t), CHAR, 1, progress=False).fingerprint for t in (["ab", "c"], ["a", "bc"])}
    assert len(prints) == 2


SCRIPT = """
import sys, time
from minitx import data
from minitx.config import DataConfig, TokenizerConfig
if sys.argv[2] == "slow":
    encode = data.Tokenizer.encode_batch
    def slowly(*arguments, **options):
        if options:
            print("encoding", flush=True)
            time.sleep(60)
        return encode(*arguments, **options)
    data.Tokenizer.encode_batch = slowly
print(data.prepare(DataConfig(sys.argv[1]), TokenizerConfig("bpe", 300), 1, progress=True).fingerprint)
"""


def start(path: Path, mode: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(path), mode]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_halfway_then_two_at_once(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("".join(f"line {i} of the text\n" for i in range(20000)))
    killed = start(path, "slow")
    assert killed.stdout is not None
    assert killed.stdout.readline() == "encoding\n"
    killed.kill()
    killed.wait()
    (left,) = cache.iterdir()
    pair = [start(path, "fast") for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    assert outputs[0] == outputs[1]
    assert outputs[0][1] == ""  # no bar, no log where nobody watches
    prepared = prepare(DataConfig(str(path)), TokenizerConfig("bpe", 300), 1, progress=False)
    assert "".join(documents(prepared, "train") + documents(prepared, "val")) == path.read_text()
    assert {folder.name for folder in cache.iterdir()} == {left.name, prepared.folder.name}
    long_ago = time.time() - 2 * data_module.LEFTOVER_AGE
    for item in [*left.iterdir(), left]:
        os.utime(item, (long_ago, long_ago))
    prepare(DataConfig(str(path)), CHAR, 1, progress=False)
    assert not left.exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot deliver an interrupt to one process")
def test_interrupt_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("some text\n" * 1000)
    process = start(path, "slow")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert list(cache.iterdir()) == []


def test_what_cannot_be_prepared(tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    one = tmp_path / "one.txt"
    one.write_text("x")
    wrong = {
        "holds no text": DataConfig(str(empty)),
        "only a Hub data set has splits": DataConfig(str(one), val_split="validation"),
        "too few to hold out": DataConfig(str(one)),
        "one document": DataConfig(str(one), split_by="document"),
    }
    for message, config in wrong.items():
        with pytest.raises(UserError, match=message):
            prepare(config, CHAR, 1, progress=False)
    one.write_text("a short text")
    prepared = prepare(DataConfig(str(one)), CHAR, 1, progress=False)
    check_length(prepared, 11)
    with pytest.raises(UserError, match=r"12 tokens.*context_length 12.*at least 13"):
        check_length(prepared, 12)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.text("ab \n日", max_size=40), st.booleans())), st.integers(1, 9))
def test_chunks_join_to_the_documents(pieces: list[tuple[str, bool]], size: int) -> None:
    joined, wanted = [""], [""]
    for text, last in pieces:
        wanted[-1] += text
        wanted += [""] * last
    for chunk in rechunk((Piece(*piece) for piece in [*pieces, ("", True)]), size):
        assert chunk.characters == len(chunk.data.decode()) <= size
        joined[-1] += chunk.data.decode()
        joined += [""] * chunk.last
    assert joined == [*wanted, ""]


def test_chunks_cut_at_line_breaks_change_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_module, "CHUNK", 100)
    path = tmp_path / "a.txt"
    text = "".join(f"line {i}: {'very ' * (i % 7)}long\n\n" for i in range(2000))
    path.write_text(text)
    for kind in ("unigram", "bpe"):
        config = TokenizerConfig(kind, 330)
        prepared = prepare(DataConfig(str(path), val_fraction=0.0001), config, 1, progress=False)
        (train,) = documents(prepared, "train")
        assert prepared.train[1:-1].tolist() == prepared.tokenizer.encode(train)


def test_token_files(tmp_path: Path) -> None:
    path = tmp_path / "tokens.bin"
    for vocab_size, dtype in ((65536, "<u2"), (65537, "<u4")):
        writer = TokenWriter(path, vocab_size)
        writer.write(np.array([1, 2, 65535], np.int32))
        writer.write(np.array([vocab_size - 1], np.int32))
        writer.close()
        tokens = read_tokens(path)
        assert tokens.dtype == np.dtype(dtype)
        assert tokens.tolist() == [1, 2, 65535, vocab_size - 1]
        del tokens  # Windows writes no file that is mapped
    good = path.read_bytes()
    damage = {b"": "not a token file", b"GIF89a" + good[6:]: "not a token file", good[:-1]: "its 4 tokens need"}
    damage |= {good + b"\0\0": "its 4 tokens need", good[:8] + b"\x09" + good[9:]: "version 9"}
    for content, message in damage.items():
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"tokens.bin.*{message}"):
            read_tokens(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_tokens(tmp_path / "none")


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 200), st.integers(1, 20), st.integers(1, 7), st.integers(0, 2**63 - 1))
def test_an_epoch_sees_every_token_once(count: int, context_length: int, batch_size: int, seed: int) -> None:
    tokens = np.arange(count, dtype=np.uint16)
    if count <= context_length:
        with pytest.raises(UserError, match="at least"):
            Batches(tokens, context_length, batch_size, seed)
        return
    batches = Batches(tokens, context_length, 1, seed)
    seen: Counter[int] = Counter()
    while batches.state()["epoch"] == 0:
        inputs, targets = next(batches)
        assert (targets == inputs + 1).all()
        if batches.state()["epoch"] == 0:
            seen.update(inputs.flatten().tolist())
    first = min(seen)
    assert set(seen.values()) == {1}
    assert sorted(seen) == list(range(first, first + len(seen)))
    assert first < context_length
    assert count - 1 - context_length < first + len(seen) <= count - 1
    whole = Batches(tokens, context_length, batch_size, seed)
    single = Batches(tokens, context_length, 1, seed)
    for _ in range(5):
        inputs, targets = next(whole)
        assert inputs.shape == targets.shape == (batch_size, context_length)
        for row in inputs:
            assert (row == next(single)[0][0]).all()


def test_batches_differ_by_epoch_and_seed_and_resume_exactly() -> None:
    tokens = np.arange(1000, dtype=np.uint16)
    batches = Batches(tokens, 16, 8, seed=5)
    states, drawn = [], []
    for _ in range(40):
        states.append(json.loads(json.dumps(batches.state())))
        drawn.append(next(batches)[0])
    assert len({state["epoch"] for state in states}) > 3
    assert len({tuple(batch[:, 0].tolist()) for batch in drawn}) == 40
    assert not (next(Batches(tokens, 16, 8, seed=6))[0] == drawn[0]).all()
    for state, batch in zip(states, drawn, strict=True):
        resumed = Batches(tokens, 16, 8, seed=5)
        resumed.restore(state)
        assert (next(resumed)[0] == batch).all()
    with pytest.raises(UserError, match="position 9999"):
        batches.restore({"epoch": 0, "position": 9999})


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 100), st.integers(1, 20), st.integers(1, 5))
def test_validation_targets_every_token_once(count: int, context_length: int, batch_size: int) -> None:
    tokens = np.arange(count, dtype=np.uint16)
    targets: list[int] = []
    for inputs, shifted in validation_windows(tokens, context_length, batch_size):
        assert inputs.shape[0] <= batch_size
        assert inputs.shape[1] <= context_length
        assert (shifted == inputs + 1).all()
        targets += shifted.flatten().tolist()
    assert targets == list(range(1, count))


def test_importing_is_light() -> None:
    code = "import sys, minitx.data; print({'torch', 'datasets', 'sentencepiece', 'pandas'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip() == "set()"
