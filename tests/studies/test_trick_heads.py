"""What tricks change, from made-up figures. tests/commands/test_compare.py compares real runs."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from pathlib import Path

import pytest

from minitx.config import ModelConfig
from minitx.studies import trick_heads
from minitx.studies.comparison import trick_variants
from minitx.studies.comparison_report import TrialResult
from minitx.studies.trick_heads import Change, Heads, change, write_trick_heads
from minitx.system.errors import UserError

VALUES = {("plain", 1): 0.9, ("plain", 2): 0.7, ("plain", 3): 0.8, ("smear", 1): 0.2, ("smear", 2): 0.1}
VALUES |= {("smear", 3): 0.3, ("relu2", 1): 0.95, ("relu2", 2): 0.65, ("relu2", 3): 0.8}


def test_changes_are_taken_seed_by_seed() -> None:
    """-0.7, -0.6 and -0.5: their spread is 0.1, though the values themselves spread more between the variants."""
    found = change(VALUES, "smear")
    assert [*found] == pytest.approx([-0.6, 0.1, 3]) and str(found) == "-0.600 ± 0.100"
    assert found.is_clear() and found.is_clear(0.6) and not found.is_clear(0.61)
    assert not change(VALUES, "relu2").is_clear()


@pytest.mark.parametrize("one", [Change(-0.6, math.nan, 1), Change(-0.6, 0.01, 2), Change(-0.2, 0.09, 3)])
def test_few_seeds_or_a_wide_spread_make_no_change_clear(one: Change) -> None:
    assert not one.is_clear()


def test_tables_and_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind that one of the runs has no score for is left out; a clear change is bold; a lower loss is a gain."""
    heads = {
        f"{name}-{seed}": Heads(
            {"previous token": value, "induction": 0.1}, Counter({"previous token": seed}), 2 * value
        )
        for (name, seed), value in VALUES.items()
    }
    heads["smear-1"].strongest.pop("induction")
    monkeypatch.setattr(trick_heads, "heads_of_run", lambda run: heads[run.name])
    results = [
        TrialResult(name, seed, f"{name}-{seed}", 10, 1.0, 2.0 + 0.01 * seed - 0.5 * (name == "smear"), 1.0)
        for name, seed in VALUES
    ]
    text = write_trick_heads(tmp_path, results, "title")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == ["strongest head", "plain", "smear", "relu2"]
    assert lines[2] == ["gain, bits per byte", "–", "**+0.500 ± 0.000**", "+0.000 ± 0.000"]
    assert lines[3] == ["loss on a repetition, nats", "1.60", "**-1.200 ± 0.200**", "+0.000 ± 0.100"]
    assert lines[4] == ["previous token", "0.80", "**-0.600 ± 0.100**", "+0.000 ± 0.050"]
    assert lines[5][0] == "heads with the role" and ["previous token", "2.0", "2.0", "2.0"] in lines
    assert not any(line[0] == "induction" and len(line) == 4 and "±" in line[2] for line in lines)
    assert (tmp_path / "tricks.md").read_text("utf-8") == text
    assert (tmp_path / "tricks.png").stat().st_size > 5000


def test_each_trick_is_alone() -> None:
    variants = trick_variants(ModelConfig(), ["smear", "relu2"])
    assert {name: model.tricks for name, model in variants.items()} == {
        "plain": [],
        "smear": ["smear"],
        "relu2": ["relu2"],
    }
    with pytest.raises(UserError, match="model.tricks is set, but --tricks adds each to a model without any"):
        trick_variants(dataclasses.replace(ModelConfig(), tricks=["smear"]), ["relu2"])
