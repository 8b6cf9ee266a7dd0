"""The code of docs/library.md runs from top to bottom, and its table names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import minitx

PAGE = (Path(__file__).parents[2] / "docs" / "library.md").read_text("utf-8")
SHORTER = {"steps=300": "steps=3", "val_fraction=0.02": "val_fraction=0.002"}


def shorter(code: str) -> str:
    """The same with less to train and to measure."""
    for setting, smaller in SHORTER.items():
        assert code.count(setting) == 1, setting
        code = code.replace(setting, smaller)
    return code


def test_its_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", shorter(PAGE), re.DOTALL):
        exec(block, names)
    assert Path("heads.html").is_file() and len([*Path("runs/mine/attention").iterdir()]) == 4


def test_its_table_names_what_there_is() -> None:
    functions = {name for name in minitx.__all__ if name.islower()}
    assert functions <= {*re.findall(r"`(\w+)\(", PAGE.split("\n## ")[0])}
    assert all((Path(__file__).parents[2] / "docs" / file).is_file() for file in re.findall(r"\]\(([\w.]+)\)", PAGE))
