"""The Attention tab's route to the strongest examples of a head."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client

from minitx.heads import examples_file
from tests.heads.test_examples import hand_made
from tests.tensorboard.test_plugin import add_run, application, ask, refusal


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs with examples at steps 10 and 30, without any, and with a link in their place."""
    logs = tmp_path_factory.mktemp("examples") / "logs"
    for name in ("good", "none", "linked"):
        add_run(logs / name, [10, 20, 30])
    for step in (10, 30):
        examples_file.write(logs / "good", hand_made()._replace(step=step))
    examples_file.path(logs / "linked", 10).symlink_to(examples_file.path(logs / "good", 10))
    return logs


@pytest.fixture(scope="module")
def client(logs: Path) -> Client:
    return application("--logdir", str(logs))


def test_the_examples_before_a_step_are_answered_with_their_context(client: Client) -> None:
    steps = {step: json.loads(ask(client, "examples", run="good", step=step, head=0).data)["step"] for step in (1, 20)}
    assert steps == {1: 10, 20: 10}, "the first, where none is earlier"
    answer = json.loads(ask(client, "examples", run="good", step=30, head=0).data)
    assert (answer["step"], answer["head"], answer["scanned"], answer["window"]) == (30, 0, 40, 20)
    assert sum(answer["counts"]) == 36 and [len(sample) for sample in answer["samples"]] == [0] * 5 + [1, 0, 0, 0, 1]
    weakest = answer["strongest"][1]
    assert (weakest["query"], weakest["key"], weakest["weight"]) == (5, 1, 0.5)
    assert weakest["context"] == [[i, f"␣{i}"] for i in range(10)]


@pytest.mark.parametrize(
    ("values", "status", "sentence"),
    [
        ({"run": "none"}, 404, "no examples"),
        ({"run": "linked"}, 404, "no examples"),
        ({"run": "../good"}, 404, "There is no run"),
        ({"run": "good", "head": 1}, 422, "There is no head 1"),
        ({"run": "good", "head": -1}, 422, "There is no head -1"),
        ({"run": "good", "head": "x"}, 400, "head is 'x'"),
        ({"run": "good", "step": "1e999"}, 400, "step is '1e999'"),
    ],
)
def test_a_wrong_request_is_answered_by_a_sentence(
    client: Client, values: dict[str, Any], status: int, sentence: str
) -> None:
    assert sentence in refusal(ask(client, "examples", **{"step": 10, "head": 0, **values}), status)


def test_a_damaged_file_is_told_and_a_mended_one_is_read(client: Client, logs: Path) -> None:
    file = examples_file.path(logs / "good", 30)
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"0.9", b"0.8", 1))
    sentence = refusal(ask(client, "examples", run="good", step=30, head=0), 422)
    assert sentence == "examples-000030.json has changed since it was written."
    file.write_bytes(whole)
    os.utime(file, ns=(1, 1))
    assert ask(client, "examples", run="good", step=30, head=0).status_code == 200
