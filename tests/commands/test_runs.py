"""`minitx runs`: a table, or JSON; the exit status says whether --check found damage."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from minitx.__main__ import main
from tests.run.test_folder import made, saved


def test_a_table_with_a_line_for_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(made(Path("runs/a")), 3)
    made(Path("runs/b\x1b[2J")).write_json("data.json", {})
    os.utime("runs/b\x1b[2J", (0, 0))
    Path("runs/b\x1b[2J/data.json").write_text("{")
    assert main(["runs"]) == 0
    header, _, b, a, fault = capfd.readouterr().out.splitlines()
    assert header.split(" | ")[1].strip() == "newest checkpoint"
    assert r"runs/b\x1b[2J" in b and b.endswith("damaged  |") and "9,264" in a and "3 of 800" in a
    assert fault == r"runs/b\x1b[2J is damaged: runs/b\x1b[2J/data.json is damaged: it is not JSON."
    assert main(["runs", "--check"]) == 1 and main(["runs", "runs/a", "--check"]) == 0


def test_json_has_every_field(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    saved(made(tmp_path / "a"), 3)
    assert main(["runs", str(tmp_path), "--json"]) == 0
    (entry,) = json.loads(capfd.readouterr().out)
    assert entry["step"] == 3 and entry["state"] == "imported" and entry["date"][:2] == "20" and entry["bytes"] > 1000


def test_an_empty_folder_and_none(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(tmp_path)]) == 0 and "There is no run in" in capfd.readouterr().out
    assert main(["runs", str(tmp_path / "x")]) == 2 and "There is no folder" in capfd.readouterr().err
    made(tmp_path / "begun").write_json("data.json", {})
    assert main(["runs", str(tmp_path)]) == 0 and "no checkpoint yet" in capfd.readouterr().out
    (tmp_path / "file").touch()
    assert main(["runs", str(tmp_path / "file"), "--check"]) == 2 and "file is a file: name" in capfd.readouterr().err
