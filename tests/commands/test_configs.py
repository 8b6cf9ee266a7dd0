"""`minitx configs` lists the shipped configurations, and prints one."""

from __future__ import annotations

from pathlib import Path

import pytest

from minitx.__main__ import main

ROOT = Path(__file__).parents[2]


def test_the_list_says_what_each_one_trains(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["configs"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[::2]] == sorted(p.stem for p in (ROOT / "configs").glob("*.yaml"))
    at = lines.index("tales: 2 layers × 4 heads, 128 wide, 128 tokens of context; 1,000 steps on tales")
    assert lines[at + 1].startswith("    Short tales in a language whose grammar is known")


def test_one_is_printed_as_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["configs", "induction"]) == 0
    assert capfd.readouterr().out == (ROOT / "configs" / "induction.yaml").read_text("utf-8")
    assert main(["configs", "inducton"]) == 2
    assert "(did you mean induction?)" in capfd.readouterr().err
