"""`minitx import`: nothing in the folder is trusted, and every verb works on the imported run."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from minitx.__main__ import main
from minitx.config import DataConfig, ModelConfig, TokenizerConfig
from minitx.data.tokenizer import Tokenizer
from minitx.interop.hf import export_folder
from minitx.model import Transformer
from minitx.run.folder import Run
from tests.small import small_text
from tests.tensorboard.test_plugin import application, ask

TOKENIZER = Tokenizer.train([small_text()], TokenizerConfig("bpe", 300))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An exported model of random weights."""
    torch.manual_seed(0)
    model = Transformer(ModelConfig(n_layer=2, n_head=2, d_model=16, context_length=64), TOKENIZER.vocab_size)
    assert export_folder(model, TOKENIZER, tmp_path / "exported")
    return tmp_path / "exported"


def refusal(folder: Path, capfd: pytest.CaptureFixture[str]) -> str:
    """The one sentence that import ends with; it must leave nothing behind."""
    runs = folder.parent / "runs"
    assert main(["import", str(folder), str(runs / "a")]) == 2
    error = capfd.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not runs.exists() or not list(runs.iterdir())
    return error


@pytest.mark.parametrize(
    "file", ["config.json", "model.safetensors", "sentencepiece.model", "tokenizer.json", "minitx.json"]
)
def test_every_flipped_bit_is_noticed(file: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole, draw = (folder / file).read_bytes(), random.Random(file)
    for place in draw.sample(range(len(whole)), 8):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        (folder / file).write_bytes(damaged)
        assert file in refusal(folder, capfd)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "sentencepiece.model"])
def test_without_checksums_no_damage_ends_in_a_traceback(
    file: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "minitx.json").unlink()
    whole, draw = (folder / file).read_bytes(), random.Random(file)
    for _ in range(40):
        damaged = bytearray(whole)
        for place in draw.sample(range(min(len(whole), 3000)), draw.choice([1, 3])):
            damaged[place] ^= 1 << draw.randrange(8)
        (folder / file).write_bytes(damaged)
        assert main(["import", str(folder), str(folder.parent / "runs" / "a")]) in (0, 2)
        err = capfd.readouterr().err
        assert err == "" or (err.startswith("error: ") and err.count("\n") == 1)


def sparse(path: Path) -> None:
    with path.open("wb") as opened:
        opened.truncate(3 << 30)


ODD_FILES: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "an endless device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": lambda path: path.mkdir(),
    "a loop": lambda path: path.symlink_to(path.name),
    "3 GB of nothing": sparse,
    "empty": lambda path: path.write_bytes(b""),
    "nested": lambda path: path.write_bytes(b"[" * 100_000),
}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes and devices in folders")
@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "sentencepiece.model", "minitx.json"])
def test_odd_files_are_refused_at_once(
    file: str, checked: bool, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Pipes hung, and a large or endless file took 6 GB before it was refused."""
    if not checked and file != "minitx.json":
        (folder / "minitx.json").unlink()
    kept = (folder / file).read_bytes()
    for make in ODD_FILES.values():
        (folder / file).unlink()
        make(folder / file)
        assert file in refusal(folder, capfd)
        shutil.rmtree(folder / file) if (folder / file).is_dir() else (folder / file).unlink()
        (folder / file).write_bytes(kept)


def test_the_real_reason_is_given(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    listed = (folder / "minitx.json").read_bytes()
    (folder / "minitx.json").unlink()
    (folder / "sentencepiece.model").rename(folder / "elsewhere")
    (folder / "tokenizer.json").unlink()
    assert "There is no tokenizer in" in refusal(folder, capfd)
    Tokenizer.train(["other words"], TokenizerConfig("char", None)).save(folder / "tokenizer.model")
    assert "tokens, but the model was made for 300" in refusal(folder, capfd)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "only pytorch_model.bin: save the weights as safetensors" in refusal(folder, capfd)
    (folder / "pytorch_model.bin").unlink()
    assert "there is no model.safetensors in it: get a whole copy, or name another" in refusal(folder, capfd)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "part.safetensors"}}')
    assert "part.safetensors is missing, with part of the weights: get a whole copy" in refusal(folder, capfd)
    (folder / "minitx.json").write_bytes(listed)
    assert "is missing: get a whole copy of the folder, or export it again" in refusal(folder, capfd)


@pytest.mark.slow
def test_every_verb_works_on_an_imported_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`heads` and `prune` ended in a KeyError, and the Attention tab did not list the run."""
    monkeypatch.chdir(tmp_path)
    assert main(["import", "exported", "runs/a"]) == main(["import", "exported", "runs/a"]) == 0
    assert sorted(run.name for run in Path("runs").iterdir()) == ["a", "a-2"]
    assert Run.find("runs/a-2").config().out == "runs/a-2"
    for verb in (
        "generate runs/a --prompt the --max_new_tokens 3",
        "heads runs/a --text cat --no_ablation",
        "heads runs/a --html page.html --text cat",
        "walkthrough runs/a",
        "export runs/a again",
    ):
        assert main(verb.split()) == 0
    capfd.readouterr()
    (tmp_path / "text.txt").write_text(small_text(100))
    config = Run.find("runs/a").config()
    assert config.data.source == "python-docs"
    Run.find("runs/a").save_config(dataclasses.replace(config, data=DataConfig(source="text.txt")))
    for verb in (
        "heads runs/a --no_ablation",
        "heads runs/a --probes",
        "heads runs/a --html b.html",
        "prune runs/a --heads 0.1 --out runs/b",
    ):
        assert main(verb.split()) == 0
        assert "imported without a text: text.txt (its data.source) stands in for it" in capfd.readouterr().err
    assert main(["train", "--resume", "runs/a"]) == 2
    assert "has no optimizer state: train on from its weights with --init_from runs/a." in capfd.readouterr().err
    listed = json.loads(ask(application("--logdir", "runs"), "runs").data)["runs"]
    assert {"a", "a-2"} <= {*listed}
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (folder / name).read_bytes() == Path("again", name).read_bytes()


def test_what_is_left_out_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    for arguments, names in ([], "FOLDER and RUN"), (["folder"], "RUN"):
        assert main(["import", *arguments]) == 2
        assert capfd.readouterr().err == f"error: Give {names}: see --help.\n"
