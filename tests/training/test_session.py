"""A run from configuration to run folder: what it keeps, and its message when it cannot go on."""

from __future__ import annotations

import dataclasses
import errno
import shutil
from pathlib import Path
from typing import Any

import pytest

import minitx.training.session
from minitx.commands.train import parse_train
from minitx.run.folder import Run
from minitx.system.errors import UserError
from minitx.training.session import newest, rewind, train
from tests.run.test_folder import saved
from tests.small import small_config


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_keeps_the_choices_that_its_numbers_depend_on(dtype: Any, tmp_path: Path) -> None:
    """Precision and threads, so that a resumed run computes the same on another machine."""
    config = small_config(tmp_path, steps=1, sample_every=0)
    assert train(dataclasses.replace(config, dtype=dtype, threads="auto")) == 0
    kept = Run(Path(config.out)).config()
    assert kept.dtype == dtype and isinstance(kept.threads, int) and kept.out == config.out


def test_a_fault_while_training_names_the_last_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(tmp_path, steps=1, sample_every=0)
    assert train(config) == 0

    def fit(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "metrics.jsonl")

    monkeypatch.setattr(minitx.training.session, "fit", fit)
    longer = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=2))
    with pytest.raises(UserError) as caught:
        train(longer, resume=config.out)
    assert "No space left" in str(caught.value) and "The checkpoint step-000001 is whole." in str(caught.value)
    assert str(caught.value).endswith(f"Go on with: minitx train --resume {config.out}")
    with pytest.raises(UserError, match="There was no checkpoint yet"):
        train(config)


def test_a_run_goes_back_to_its_newest_whole_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(tmp_path)
    assert newest(run, 9, 9) is None
    run.append_metrics({"step": 1})
    saved(run, 1)
    run.append_metrics({"step": 2})
    saved(run, 2)
    run.write_json("summary.json", {})
    finished = "is finished at step 2: to go on, give more steps, as in --train.steps 4"
    with pytest.raises(UserError, match=finished):
        newest(run, 2, 2)
    run.read_json("summary.json")
    (run.path / "summary.json").unlink()
    for steps in (1, 2):  # fewer than are trained, or than were asked for: nothing is evaluated, nothing changes
        with pytest.raises(UserError, match=finished):
            newest(run, steps, 9)
    (tmp_path / "checkpoints" / "step-000002" / "optimizer.pt").unlink()
    checkpoint = newest(run, 9, 9)
    assert checkpoint is not None and checkpoint.step == 1
    rewind(run, checkpoint)
    assert [line["step"] for line in run.metrics()] == [1] and not (tmp_path / "summary.json").exists()
    printed = capsys.readouterr()
    assert "going on from step 1" in printed.out and "optimizer.pt cannot be read (No such file" in printed.err
    shutil.rmtree(tmp_path / "checkpoints" / "step-000001")
    with pytest.raises(UserError, match="has no whole checkpoint: restore one"):
        newest(run, 9, 9)


def test_what_does_not_fit_is_refused_before_anything_changes(tmp_path: Path) -> None:
    config = small_config(tmp_path, steps=2, sample_every=0)
    assert train(config) == 0
    run, longer = Path(config.out), dataclasses.replace(config.train, steps=4)
    with pytest.raises(UserError, match="keeps its model settings: leave --model.n_layer out"):
        train(dataclasses.replace(config, model=dataclasses.replace(config.model, n_layer=3)), resume=config.out)
    with pytest.raises(UserError, match="keeps its train.start: leave --train.start out"):
        train(dataclasses.replace(config, train=dataclasses.replace(longer, start="zero")), resume=config.out)
    text = (run / "config.yaml").read_text().replace("d_model: 16", "d_model: 32")
    (run / "config.yaml").write_text(f"# edited\n{text}")
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    edited = dataclasses.replace(Run(run).config(), train=longer)
    with pytest.raises(UserError, match=r"does not fit the model of config.yaml: embedding.weight is \(\d+, 16\), not"):
        train(edited, resume=config.out)
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before
    (run / "config.yaml").write_text(f"# edited\n{text}".replace("d_model: 32", "d_model: 16").replace("0.1", "0.3"))
    with pytest.raises(UserError, match="validates on another part of its text than before"):
        train(dataclasses.replace(Run(run).config(), train=longer), resume=config.out)
    with pytest.raises(UserError, match="stays in its folder .*: leave --out out"):
        parse_train(["--resume", config.out, "--out", "elsewhere"], "train.py")


def test_an_imported_run_is_not_resumed(tmp_path: Path) -> None:
    config = small_config(tmp_path, steps=1, sample_every=0)
    assert train(config) == 0
    run = Run(Path(config.out))
    run.write_json("data.json", {k: v for k, v in run.read_json("data.json").items() if k != "fingerprint"})
    with pytest.raises(UserError, match="was imported, so it has no optimizer state.*with --init_from"):
        train(config, resume=config.out)
