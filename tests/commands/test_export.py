"""`minitx export` onto what is already there, to a GGUF file, and of a run without an architecture in transformers.

The rest is in tests/interop and tests/test_end_to_end.py.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from minitx.__main__ import main
from minitx.config import ModelConfig
from minitx.system.files import checksum, read_json
from minitx.training.session import train
from tests.small import small_config


def test_latent_attention_is_refused_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = small_config(tmp_path, steps=1, sample_every=0)
    model: ModelConfig = dataclasses.replace(config.model, attention="latent")
    assert train(dataclasses.replace(config, model=model)) == 0
    capsys.readouterr()
    assert main(["export", config.out, str(tmp_path / "exported")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: The model has latent attention, which neither Llama") and error.count("\n") == 1
    assert not (tmp_path / "exported").exists()


def test_only_an_export_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, folder = small_config(tmp_path, steps=1, sample_every=0), tmp_path / "exported"
    assert train(config) == 0
    assert main(["export", config.out, str(folder)]) == 0
    assert "AutoTokenizer.from_pretrained" in capsys.readouterr().out
    (folder / "config.json").write_text("damaged")
    (tmp_path / f".exported-{2**22 + 1}").mkdir()  # a draft of a process that was killed
    assert main(["export", config.out, str(folder)]) == 0
    assert f"is in {folder}, in place of an earlier export: " in capsys.readouterr().out
    about = read_json(folder / "minitx.json")["files"]
    assert {file.name for file in folder.iterdir()} == {*about, "minitx.json"}
    assert all(about[name]["sha256"] == checksum(folder / name) for name in about)
    assert not list(tmp_path.glob(".exported*"))

    (folder / "mine.txt").write_text("mine")
    (tmp_path / "of others").mkdir()
    (tmp_path / "of others" / "config.json").write_text("theirs")
    capsys.readouterr()
    for name in ("exported", "of others", "text.txt"):
        assert main(["export", config.out, str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert f"{name} is a file" in error or "holds other files than an export" in error
    assert (folder / "mine.txt").exists() and (tmp_path / "of others" / "config.json").read_text() == "theirs"


def test_a_gguf_file_is_made_and_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gguf = pytest.importorskip("gguf", reason="gguf is an extra")
    config, file = small_config(tmp_path, steps=1, sample_every=0), tmp_path / "small.gguf"
    assert train(config) == 0
    file.write_text("mine")
    assert main(["export", config.out, str(file), "--format", "gguf"]) == 2
    assert "small.gguf is another file than an export: name a new one." in capsys.readouterr().err
    file.write_text("GGUF, but damaged")
    assert main(["export", config.out, str(file), "--format", "gguf"]) == 0
    assert f"llama-server --model {file}" in capsys.readouterr().out
    assert gguf.GGUFReader(file).fields["general.name"].contents() == "small"
    assert not list(tmp_path.glob(".small*"))


def test_a_page_is_made_and_replaced_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, file = small_config(tmp_path, steps=1, sample_every=0), tmp_path / "small.html"
    assert train(config) == 0
    file.write_text("<title>Mine</title>")
    export = ["export", config.out, str(file), "--format", "page"]
    assert main(export) == 2
    assert "small.html is another file than an export: name a new one." in capsys.readouterr().err
    file.unlink()
    for said in (f"is in {file}: a browser", f"is in {file}, in place of an earlier export: a browser"):
        assert main(export) == 0
        printed = capsys.readouterr()
        assert said in printed.out and printed.out.count("\n") == 1 and printed.err == ""


def test_what_gguf_lacks_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, file = small_config(tmp_path, steps=1, sample_every=0), tmp_path / "small.gguf"
    assert train(config) == 0
    monkeypatch.setitem(sys.modules, "gguf", None)
    expected = {str(tmp_path / "small"): "end its name with .gguf", str(file): "pip install minitx[gguf]"}
    for name, sentence in expected.items():
        capsys.readouterr()
        assert main(["export", config.out, name, "--format", "gguf"]) == 2
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") == 1
        assert not Path(name).exists()
