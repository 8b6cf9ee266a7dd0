"""Logs: appended, read, and cut back to a checkpoint."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from minitx.run.folder import Run
from minitx.run.logs import append_line, cut_logs, log_files
from tests.run.test_folder import saved


def test_logs_are_cut_back_to_the_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Torn lines, lines of later steps and event files begun since: a resumed run writes them again."""
    run = Run(tmp_path)
    for step in range(1, 4):
        run.append_metrics({"step": step, "train_loss": step / 10})
    (tmp_path / "events.out.tfevents.1").write_bytes(b"curves")
    saved(run, 3)
    run.append_metrics({"step": 4, "train_loss": float("nan")})
    assert run.metrics()[-1] == {"step": 4, "train_loss": None}
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "train_l')
    assert [line["step"] for line in run.metrics()] == [1, 2, 3, 4]
    (tmp_path / "events.out.tfevents.1").write_bytes(b"curves and more")
    (tmp_path / "events.out.tfevents.2").write_bytes(b"later")
    cut_logs(tmp_path, run.checkpoint("last").logs, 3)
    assert [line["step"] for line in run.metrics()] == [1, 2, 3]
    assert [file.name for file in log_files(tmp_path)] == ["events.out.tfevents.1", "metrics.jsonl"]
    assert log_files(tmp_path)[0].read_bytes() == b"curves" and capsys.readouterr().err == ""
    (tmp_path / "metrics.jsonl").write_bytes((tmp_path / "metrics.jsonl").read_bytes().replace(b"0.1", b"9.1"))
    (tmp_path / "events.out.tfevents.1").unlink()
    cut_logs(tmp_path, run.checkpoint("last").logs, 3)
    warning = capsys.readouterr().err
    assert "metrics.jsonl has changed" in warning and "events.out.tfevents.1 is missing" in warning
    cut_logs(tmp_path, {}, 0)
    assert log_files(tmp_path) == []


def test_lines_have_only_what_json_has(tmp_path: Path) -> None:
    append_line(tmp_path / "a.jsonl", {"step": 1, "scores": {"x": [0.5, math.nan]}, "loss": math.inf})
    text = (tmp_path / "a.jsonl").read_text()
    assert json.loads(text) == {"step": 1, "scores": {"x": [0.5, None]}, "loss": None} and text.endswith("\n")
