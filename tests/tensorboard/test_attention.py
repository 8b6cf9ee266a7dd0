"""The weights from one place of a text to another over the steps, as the Attention tab asks for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client

from minitx.heads import snapshots
from minitx.tensorboard.plugin import attention
from tests.heads.test_snapshots import read_patterns
from tests.tensorboard.test_plugin import BASE, add_run, application


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    logs = tmp_path_factory.mktemp("attention")
    add_run(logs / "run", [10, 20, 30, 40])
    (logs / "run" / "attention" / "step-000020.heads").write_bytes(b"\x00" * 50)
    return logs


@pytest.fixture(scope="module")
def client(logs: Path) -> Client:
    return application("--logdir", str(logs))


def answer(client: Client, values: str) -> Any:
    return client.get(f"{BASE}/attention?run=run&{values}").json


@pytest.mark.parametrize("probe", [0, 1])
def test_every_step_has_the_weights_of_all_heads_and_a_damaged_one_null(client: Client, logs: Path, probe: int) -> None:
    found = answer(client, f"probe={probe}&query=2-4&key=1-3")
    assert found["steps"] == [10, 20, 30, 40] and found["isAll"] and found["values"][1] is None
    for step, values in zip(found["steps"], found["values"], strict=True):
        if values is not None:
            whole = read_patterns(snapshots.path(logs / "run", step).read_bytes(), probe)
            expected = whole[:, :, 2:4, 1:3].sum(axis=-1).mean(axis=-1).ravel()
            assert values == pytest.approx(expected.tolist(), abs=1e-5)
    assert answer(client, f"probe={probe}&query=2-4&key=1-3&after=20")["steps"] == [30, 40]


def test_long_reading_is_answered_in_parts(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """One request must not hold the server for as long as a thousand steps take."""
    monkeypatch.setattr(attention, "MAX_SECONDS", 0)
    found = answer(client, "query=3-4")
    assert found["steps"] == [10] and not found["isAll"]
    assert answer(client, "query=3-4&after=30")["isAll"]


@pytest.mark.parametrize(
    "values", ["", "query=3", "query=3-3", "query=4-2", "query=-1-2", "query=0-1&key=x", "query=1-1000000", "query=²-3"]
)
def test_a_bad_span_is_answered_by_a_sentence(client: Client, values: str) -> None:
    reply = client.get(f"{BASE}/attention?run=run&{values}")
    assert reply.status_code == 400 and str(reply.json and reply.json["error"]).endswith((".", "missing."))


def test_tokens_that_no_step_has_give_null(client: Client) -> None:
    assert answer(client, "query=50-51")["values"] == [None] * 4
    assert answer(client, "query=1-2")["values"] == [[None] * 4, None, [None] * 4, [None] * 4]  # no word is before it
