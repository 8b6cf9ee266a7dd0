"""Preparing a text: exact splits, the whole text decodes back, no half-written folder is used."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from minitx.commands.data import main
from minitx.config import Config, DataConfig, TokenizerConfig
from minitx.config.parsing import load_config
from minitx.data import encode, spool
from minitx.data import prepare as data_module
from minitx.data.prepare import Prepared, check_length, prepare
from minitx.data.split import held_out
from minitx.data.tokenizer import Tokenizer
from minitx.run.folder import Run
from minitx.system.errors import UserError

ROOT = Path(__file__).parents[2]
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
    monkeypatch.setattr(spool, "MAX_CHARACTERS", 7)
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
    one, two = (prepare(replace(config, seed=seed), CHAR, 1, progress=False) for seed in (1, 2))
    train, val = documents(one, "train"), documents(one, "val")
    assert sorted(train + val) == sorted(texts)
    assert train == [text for text in texts if text in set(train)]
    assert 5 <= len(val) <= 40
    assert documents(two, "val") != val
    assert one.fingerprint == two.fingerprint
    by_position = prepare(replace(config, split_by="position"), CHAR, 1, progress=False)
    assert "".join(documents(by_position, "train") + documents(by_position, "val")) == "".join(texts)


def test_the_seed_of_a_run_does_not_move_the_split(tmp_path: Path) -> None:
    """Only `data.seed: null`, which stands in config.yaml of older runs, still takes it."""
    texts = [f"document {i}\n  of many\n" for i in range(200)]
    config = source(tmp_path, texts)
    assert len({prepare(config, CHAR, seed, progress=False).val_fingerprint for seed in (1, 2, 1337)}) == 1
    file = tmp_path / "config.yaml"
    file.write_text(f"seed: 2\ndata:\n  source: {config.source}\n  seed: null\n")
    old = load_config(file)
    as_before, other = (prepare(old.data, CHAR, seed, progress=False) for seed in (old.seed, 3))
    assert as_before.val_fingerprint == prepare(replace(config, seed=2), CHAR, 1, progress=False).val_fingerprint
    assert documents(as_before, "val") == [texts[i] for i in sorted(held_out([*map(len, texts)], 0.1, 2))]
    assert other.val_fingerprint != as_before.val_fingerprint


def test_held_out_takes_its_share_of_the_text_and_depends_on_the_seed() -> None:
    sizes = [(i * 7919) % 1000 + 1 for i in range(2000)]
    chosen = held_out(sizes, 0.1, 3)
    assert 0.099 * sum(sizes) < sum(sizes[i] for i in chosen) <= 0.1 * sum(sizes)
    assert held_out(sizes, 0.1, 3) == chosen != held_out(sizes, 0.1, 4)
    for seed in range(20):
        assert held_out([5, 9], 0.01, seed) == {0}
        assert 1 <= len(held_out([1, 1, 1, 1, 1], 0.99, seed)) < 5


def test_documents_that_only_train_move_no_split() -> None:
    characters, rng = [*range(1, 200)], range(200, 300)
    for seed in range(3):
        alone = held_out(characters, 0.1, seed)
        assert held_out([*characters, *rng], 0.1, seed, set(range(199, 299))) == alone
    assert held_out([5, 9, 1], 0.0, 1, {2}) == {0}


def test_rows_can_be_joined(tmp_path: Path) -> None:
    rows = [f"line {i}\n" for i in range(300)]
    config = replace(source(tmp_path, rows), join_rows=True, max_documents=200)
    prepared = prepare(config, CHAR, 1, progress=False)
    assert (prepared.train_documents, prepared.val_documents) == (1, 1)
    assert "".join(documents(prepared, "train") + documents(prepared, "val")) == "".join(rows[:200])


def test_cache_follows_what_it_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    config = source(tmp_path, ["some text of a certain length\n" * 20, "more of it"])
    first = prepare(config, CHAR, 1, progress=False)
    assert sorted(path.name for path in cache.iterdir()) == [".lock", first.folder.name]
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
    (changed.folder / "val.npy").write_bytes(b"damaged")
    assert len(prepare(source(tmp_path, ["other text\n" * 50]), CHAR, 1, progress=False).val) > 2


def test_a_resumed_run_takes_what_it_kept_of_the_hub_without_asking(tmp_path: Path, cache: Path) -> None:
    """The Hub is not there, and the key of the cache depends on what it would say."""
    first = prepare(source(tmp_path, ["some text of a certain length\n" * 20]), CHAR, 1, progress=False)
    hub = DataConfig("me/none")
    again = prepare(hub, CHAR, 1, progress=False, tokenizer_model=first.tokenizer, cached_folder=first.folder.name)
    assert again.folder == first.folder and again.fingerprint == first.fingerprint


def test_token_files_are_numpy_arrays_that_anyone_can_open(tmp_path: Path) -> None:
    prepared = prepare(source(tmp_path, ["some text of a certain length\n" * 20]), CHAR, 1, progress=False)
    for split in ("train", "val"):
        tokens = np.load(prepared.folder / f"{split}.npy")
        assert tokens.dtype == "<u2" and tokens.tolist() == getattr(prepared, split).tolist()
    assert isinstance(prepared.train, np.memmap) and not prepared.train.flags.writeable


@pytest.mark.parametrize("content", [None, b"", b"hello", b"\x93NUMPY\x01\x00v\x00{", b"PK\x03\x04"])
def test_a_token_file_that_is_missing_damaged_or_foreign_is_prepared_again(
    content: bytes | None, tmp_path: Path
) -> None:
    config = source(tmp_path, ["some text of a certain length\n" * 20])
    file = prepare(config, CHAR, 1, progress=False).folder / "train.npy"
    whole = file.read_bytes()
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    prepare(config, CHAR, 1, progress=False)
    assert file.read_bytes() == whole


@pytest.mark.parametrize("name", [*data_module.FILES, "meta.json"])
def test_a_flipped_bit_in_the_cache_is_noticed(name: str, tmp_path: Path) -> None:
    config = source(tmp_path, ["some text of a certain length\n" * 20])
    folder = prepare(config, CHAR, 1, progress=False).folder
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    prepare(config, CHAR, 1, progress=False)
    assert (folder / name).read_bytes() == whole


def test_fingerprint_tells_documents_apart(tmp_path: Path) -> None:
    prints = {prepare(source(tmp_path, t), CHAR, 1, progress=False).fingerprint for t in (["ab", "c"], ["a", "bc"])}
    assert len(prints) == 2


def test_a_run_says_which_text_validates_and_how_much_of_it_stands_in_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["".join(random.Random(i).choices("abcdefgh", k=1000)) for i in range(150)]
    (validates,) = held_out([1000] * 150, 0.01, DataConfig().seed or 0)
    texts[validates - 1] = "x" + texts[validates][200:600] + texts[validates - 1][401:]
    config = replace(source(tmp_path, texts), val_fraction=0.01)
    for _ in ("built", "from the cache"):
        prepared = prepare(config, CHAR, 1, progress=False)
        run = Run.create(str(tmp_path / "run"), Config(), prepared.tokenizer, prepared.describe())
        about = run.read_json("data.json")
        assert about["val_fingerprint"] == sha256(texts[validates].encode() + b"\xff").hexdigest()
        assert about["val_in_train"] == 0.4
    assert main(["--data.source", config.source, "--data.val_fraction", "0.01", "--tokenizer.type", "char"], "") == 0
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (shown["val_fingerprint"], shown["val_in_train"]) == (about["val_fingerprint"], "40.00%")


SCRIPT = """
import sys, time
from minitx.data import prepare as data
from minitx.commands.data import main
from minitx.config import Config, DataConfig, TokenizerConfig
from minitx.config.parsing import load_config
if sys.argv[2] == "slow":
    encode = data.Tokenizer.encode_batch
    def slowly(tokenizer, texts):
        if len(texts) > 1:  # a new tokenizer tries itself on one
            print("encoding", flush=True)
            time.sleep(60)
        return encode(tokenizer, texts)
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
    (left,) = cache.glob("unfinished-*")
    pair = [start(path, "fast") for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    assert outputs[0] == outputs[1]
    assert outputs[0][1] == ""  # no bar, no log where nobody watches
    prepared = prepare(DataConfig(str(path)), TokenizerConfig("bpe", 300), 1, progress=False)
    assert "".join(documents(prepared, "train") + documents(prepared, "val")) == path.read_text()
    assert not left.exists()
    assert {folder.name for folder in cache.iterdir()} == {".lock", prepared.folder.name}


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot deliver an interrupt to one process")
def test_interrupt_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("some text\n" * 1000)
    process = start(path, "slow")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert [item.name for item in cache.iterdir()] == [".lock"]


def test_what_cannot_be_prepared(tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    blank = tmp_path / "blank.txt"
    blank.write_text(" \n\t\n" * 100)
    one = tmp_path / "one.txt"
    one.write_text("x")
    wrong = {
        "holds no text": DataConfig(str(empty)),
        "no text but spaces and line breaks": DataConfig(str(blank)),
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


def test_chunks_cut_at_line_breaks_change_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "MAX_CHARACTERS", 100)
    path = tmp_path / "a.txt"
    text = "".join(f"line {i}: {'very ' * (i % 7)}long\n\n" for i in range(2000))
    path.write_text(text)
    for kind in ("unigram", "bpe", "word"):
        config = TokenizerConfig(kind, 330)
        prepared = prepare(DataConfig(str(path), val_fraction=0.0001), config, 1, progress=False)
        (train,) = documents(prepared, "train")
        assert prepared.train[1:-1].tolist() == prepared.tokenizer.encode(train)


def test_words_are_counted_in_the_whole_training_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a sample, a word that stands only in one part of a corpus would be missing."""
    monkeypatch.setattr(encode, "SAMPLE_BYTES", 1)
    config = replace(source(tmp_path, [f"Once a{chr(97 + i)} fox" for i in range(20)]), split_by="document")
    prepared = prepare(config, TokenizerConfig("word"), 1, progress=False)
    texts = documents(prepared, "train")
    assert [len(prepared.tokenizer.encode(text)) for text in texts] == [3] * len(texts)
    assert len(texts) == 18


def test_the_number_of_threads_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = source(tmp_path, [f"document {i} says ▁ {'very ' * (i % 7)}much\n" * (i % 5 + 1) for i in range(300)])
    monkeypatch.setattr(encode, "BATCH_CHARACTERS", 500)
    results = []
    for workers in (1, 4):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"{workers}"))
        prepared = prepare(config, TokenizerConfig("bpe", 330), 1, progress=False, workers=workers)
        results.append([(prepared.folder / name).read_bytes() for name in data_module.FILES] + [prepared.describe()])
    assert results[0] == results[1]


def test_importing_is_light() -> None:
    code = "import sys, minitx.data.prepare; print({'torch', 'datasets', 'sentencepiece', 'pandas'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip() == "set()"
