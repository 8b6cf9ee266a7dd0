"""Logs: appended, read, and cut back to a checkpoint."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from minitx.heads.figures import history_figure
from minitx.run.folder import Run
from minitx.run.logs import append_line, cut_logs, log_files
from minitx.system.files import without_nan
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


def head_line(step: int) -> dict[str, Any]:
    scores = {"induction": [[0.5, step / 100], [0.25, math.nan]], "entropy": [[1.5, 2.0], [0.1, 0.2]]}
    return {"step": step, "scores": scores, "chance": {"induction": 0.1, "entropy": None}, "repeated_loss": [2.5, 1.5]}


def test_damage_of_head_scores_is_told_and_the_others_are_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every line by its own checksum, and those up to the newest checkpoint by that of the checkpoint too."""
    run, file = Run(tmp_path), tmp_path / "heads.jsonl"
    for step in (1, 2, 3):
        run.append_metrics(head_line(step), "heads.jsonl")
        if step == 2:
            saved(run, 2)
    whole = file.read_bytes()
    lines = run.heads()
    assert [line["step"] for line in lines] == [1, 2, 3] and lines[0] == without_nan(head_line(1))
    history_figure(lines, "…")
    assert capsys.readouterr().err == ""
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 7]) + whole[place + 1 :])
        assert all(line in lines for line in run.heads()), file.read_bytes()
        warned = capsys.readouterr().err
        assert f"{file} is damaged: its lines" in warned or f"{file} has changed since" in warned, place
    first, second, third = whole.splitlines(keepends=True)
    odd = json.dumps({**json.loads(third), "sha256": None, "scores": {"induction": [[0.5], [0.25, 0.5]]}}).encode()
    for content, steps, warning in (
        (second + first + third, [1, 2, 3], "has changed since the newest checkpoint"),
        (first + third, [1, 3], "has changed since"),
        (first + second + third[:-9], [1, 2], "its lines 3 are left out"),
        (first + second + odd, [1, 2], "its lines 3 are left out"),
        (b"[1]\n" + first.replace(b"0.01", b"1e400") + second, [2], "its lines 1, 2 are left out"),
    ):
        file.write_bytes(content)
        assert [line["step"] for line in run.heads()] == steps and warning in capsys.readouterr().err


def test_head_scores_of_older_versions_have_no_checksum(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "heads.jsonl").write_text(json.dumps(without_nan(head_line(1))) + "\n")
    assert [line["step"] for line in Run(tmp_path).heads()] == [1] and capsys.readouterr().err == ""
