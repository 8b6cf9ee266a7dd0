"""Turns, repeats and tables of timings. No test asserts how long anything takes."""

from __future__ import annotations

import json
import math
import time
from functools import partial
from itertools import count

import pytest

from minitx.bench.suite import Table, shown
from minitx.system.timing import MIN_ROUNDS, WARM_UP, Timed, alternate, calibrate, repeat, speed_ups


def test_candidates_take_turns() -> None:
    order: list[str] = []
    candidates = {name: partial(order.append, name) for name in "AB"}
    timed = alternate(candidates, repeats=4, seconds=60, shortest=0.0)
    assert "".join(order).endswith("ABABABAB")
    assert [len(each.seconds) for each in timed.values()] == [4, 4]


def test_there_are_always_some_rounds_and_never_more_than_asked() -> None:
    few = alternate({"a": lambda: None}, repeats=30, seconds=1e-9, shortest=0.0)
    assert len(few["a"].seconds) == MIN_ROUNDS
    assert len(alternate({"a": lambda: None}, repeats=1, seconds=60, shortest=0.0)["a"].seconds) == 1


def test_a_quick_call_is_repeated_within_a_repeat() -> None:
    timed = alternate({"quick": lambda: None, "slow": lambda: time.sleep(0.02)}, repeats=1, seconds=1, shortest=0.01)
    assert timed["quick"].calls > 100
    assert timed["slow"].calls == 1
    assert timed["quick"].minimum < timed["slow"].minimum


def test_a_candidate_may_bring_its_own_seconds() -> None:
    """llama2.c prints its rate; the start of its process must not count."""
    timed = alternate({"own": lambda: 3.0}, repeats=2, seconds=1)
    assert timed["own"].seconds == [3.0, 3.0]
    assert repeat(lambda: 0.5, 4, "cpu") == 0.5


def test_warm_up_is_not_measured() -> None:
    calls = count()
    assert calibrate(lambda: 1.0 + next(calls), "cpu", 0.05) == 1
    assert next(calls) == WARM_UP + 1


def test_minimum_median_and_ratio() -> None:
    timed = {"base": Timed([4.0, 2.0, 9.0], 1), "other": Timed([1.0, 3.0, 2.0], 1)}
    assert (timed["base"].minimum, timed["base"].median) == (2.0, 4.0)
    assert speed_ups(timed, "base") == {"base": (1.0, 1.0), "other": (2.0, 2.0)}
    table = Table("Speed")
    table.add_rates("times", timed, "base", 12, {"work": "w"}, memory={"base": 4, "other": 5})
    rates = {"best": 12.0, "median": 6.0, "× by best": 2.0, "× by median": 2.0}
    assert table.rows[1] == {"work": "w", "candidate": "other", **rates, "memory": 5}
    assert table.raw["times"]["base"] == {"seconds": [4.0, 2.0, 9.0], "calls_per_repeat": 1}


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, ""),
        ("a name", "a name"),
        (12345, "12,345"),
        (12345.6, "12,346"),
        (123.4, "123"),
        (0.99996, "1.00"),
        (0.012345, "0.0123"),
        (0.0, "0"),
        (-1.5, "-1.50"),
        (math.nan, "–"),
    ],
)
def test_cells_have_three_digits(cell: str | int | float | None, text: str) -> None:
    assert shown(cell) == text


def test_a_table_is_markdown_of_fixed_width() -> None:
    table = Table("Speed", [{"who": "a", "rate": 1.0}, {"who": "longer", "rate": 12345.0}], ["A note."])
    lines = table.as_text().splitlines()
    assert lines[0] == "### Speed"
    assert lines[2:6] == ["| who    |   rate |", "| ------ | -----: |", "| a      |   1.00 |", "| longer | 12,345 |"]
    assert lines[-1] == "A note."


def test_json_has_the_same_content_and_only_what_json_knows() -> None:
    table = Table("Speed", [{"who": "a", "rate": math.inf}], raw={"seconds": {1: [0.5, math.nan]}})
    content = json.loads(json.dumps(table.as_json(), allow_nan=False))
    assert content["rows"] == [{"who": "a", "rate": None}]
    assert content["raw"] == {"seconds": {"1": [0.5, None]}}
