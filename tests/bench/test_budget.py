"""The suite budget: fixed steps give the same figures again, whoever trains beside; records name what they rest on."""

from __future__ import annotations

import dataclasses
import statistics
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from minitx.bench import sides
from minitx.bench.settings import BenchConfig
from minitx.bench.sides import Side
from minitx.bench.significance import welch_p
from minitx.bench.suite import Bench, Table
from minitx.bench.suites import budget
from minitx.bench.tracks import recipe_on, track_of
from minitx.data.prepare import prepare
from minitx.system.errors import UserError
from tests.bench.small import cpu, nano_gpt_checkout
from tests.small import small_text


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings of a run of two steps, whose model has dropout, so that it draws while it trains."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    text.write_text(small_text(), "utf-8")
    model = {"n_layer": 1, "n_head": 2, "d_model": 16, "context_length": 32, "dropout": 0.3}
    for name, rate in (("small", 0.01), ("other", 0.05)):
        train = {"batch_size": 4, "warmup_steps": 2, "learning_rate": rate}
        content = {"tokenizer": {"type": "char"}, "model": model, "train": train}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return {
        "suite": "budget",
        "tracks": "tinyshakespeare",
        "text": str(text),
        "budget_config": str(tmp_path / "small.yaml"),
        "steps": 2,
        "turns": 2,
        "device": "cpu",
        "dtype": "float32",
        "threads": 1,
    }


def measure(settings: dict[str, Any]) -> list[Table]:
    return list(budget.run(Bench(BenchConfig(**settings), [], cpu())))


def test_every_row_and_what_it_rests_on(given: dict[str, Any], tmp_path: Path) -> None:
    peers = {"nanogpt": str(nano_gpt_checkout(tmp_path)), "against": str(tmp_path / "other.yaml")}
    (table,) = measure({**given, **peers, "seeds": "3"})
    names = [row["candidate"] for row in table.rows]
    assert names[:3] == ["minitx", "against other", "nanoGPT"]
    assert str(names[3]).startswith("byte n-gram, n = ")
    assert names[4:] == ["xz -9e"]
    figures = table.raw["figures"]
    for row in table.rows[:3]:
        of_row = figures[row["candidate"]]
        assert len(set(of_row)) == 3
        assert row["bits per byte"] == f"{statistics.fmean(of_row):.4f}"
        assert row["±"] == f"{statistics.stdev(of_row):.4f}"
        assert (row["steps"], row["seeds"]) == (2, 3)
    p = welch_p(figures["minitx"], figures["nanoGPT"])
    assert any(note.startswith("minitx − nanoGPT: ") and f"p = {p:.2g}" in note for note in table.notes)
    config = recipe_on("tinyshakespeare", given["budget_config"], given["text"])
    split = prepare(config.data, config.tokenizer, config.seed, progress=False).val_fingerprint
    assert any(split[:16] in note for note in table.notes)
    assert table.raw["split"]["val_fingerprint"] == split
    assert "No claim" not in table.as_text()


def test_the_same_to_the_last_bit_whoever_trains_beside(given: dict[str, Any], tmp_path: Path) -> None:
    alone, again = (measure(given)[0].raw["figures"]["minitx"] for _ in range(2))
    nano_gpt = {"nanogpt": str(nano_gpt_checkout(tmp_path))}
    beside, by_other_turns = (measure({**given, **nano_gpt, "turns": n})[0].raw["figures"] for n in (1, 2))
    assert alone == again == beside["minitx"]
    assert beside == by_other_turns


def test_seeds_may_be_named(given: dict[str, Any]) -> None:
    two, one = (measure({**given, "seeds": seeds})[0].raw["figures"]["minitx"] for seeds in ("5,6", "1"))
    assert measure({**given, "seed": 6})[0].raw["figures"]["minitx"] == two[1:]
    assert one[0] not in two


def test_the_steps_are_those_that_fit(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "least_seconds", lambda makers, bench: dict.fromkeys(makers, 0.3))
    tables = measure({**given, "steps": None, "budgets": "1,0.7,0.01"})
    assert [table.rows[0]["steps"] for table in tables] == [3, 2, 1]
    assert [table.title for table in tables][1] == "budget, tinyshakespeare, 0.7 s of training"
    assert tables[0].rows[0]["ms per step, least"] == pytest.approx(300)
    assert any("No claim" in note for note in tables[0].notes)


def test_milliseconds_of_a_step_may_be_given(
    given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "SLACK", 0.0)
    timed = {**given, "steps": None, "budgets": "0.1", "nanogpt": str(nano_gpt_checkout(tmp_path))}
    (table,) = measure({**timed, "step_ms": "50,50"})
    assert [row["steps"] for row in table.rows[:2]] == [2, 2]
    assert budget.GIVEN in table.notes and any("No record of nanoGPT" in note for note in table.notes)
    with pytest.raises(UserError, match="step_ms has 1 numbers, but there are 2 recipes: minitx, nanoGPT"):
        measure({**timed, "step_ms": "50"})


def test_a_step_is_timed_by_the_processor(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "ROUND", 1e-3)
    monkeypatch.setattr(budget, "ROUNDS", 2)
    ticks = iter(range(10**6))
    monkeypatch.setattr(time, "process_time", lambda: 0.25 * next(ticks))
    makers = {"a": lambda steps, seed: Side("a", steps, 1, lambda number: None, lambda: 0.0, 1)}
    settings = BenchConfig(**given)
    assert budget.least_seconds(makers, Bench(settings, [], cpu())) == {"a": 0.25}


def test_a_training_over_its_budget_is_no_record() -> None:
    trained = [Side("a", 1, 1, lambda number: None, lambda: 0.0, 1, seconds=90, cpu_seconds=n) for n in (130, 133)]
    results, runtime = {"a": budget.Result(trained, 1.0)}, dataclasses.replace(cpu(), threads=2)
    assert budget.over(results, 61.0, runtime) == []
    (sentence,) = budget.over(results, 60.0, runtime)
    assert sentence.startswith("No record of a: a training took 66.5 s, too far over 60 s")


def test_the_learning_rate_ends_with_the_budget(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    factors: list[float] = []
    monkeypatch.setattr(sides, "set_learning_rate", lambda optimizers, factor: factors.append(factor))
    config = recipe_on("tinyshakespeare", given["budget_config"], given["text"])
    side = budget.our_side("minitx", config, track_of("tinyshakespeare", config), cpu(), 10, 1)
    for number in range(10):
        side.step(number)
    assert factors[0] == pytest.approx(1 / 3)  # it warms up for two steps
    assert factors[-1] == pytest.approx(1 / 7)  # and decays over seven of ten
    assert max(factors) == 1


def test_a_text_too_short_for_the_peer(given: dict[str, Any], tmp_path: Path) -> None:
    Path(given["text"]).write_text("a short one\n" * 5, "utf-8")
    with pytest.raises(UserError, match="context_length 64 needs at least 65"):
        measure({**given, "nanogpt": str(nano_gpt_checkout(tmp_path))})
