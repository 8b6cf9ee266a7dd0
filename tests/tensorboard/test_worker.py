"""The worker answers questions from a warm process, starts again when that died, and ends when it is not needed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from threading import Timer
from typing import Any

import pytest
import torch
from werkzeug.exceptions import BadRequest
from werkzeug.test import Client

from minitx.data.tokenizer import Tokenizer
from minitx.heads.what_if import ranking, without
from minitx.run import checkpoints, weights
from minitx.run.folder import Run
from minitx.system.errors import UserError
from minitx.tensorboard.plugin import worker
from minitx.tensorboard.plugin.questions import FIELDS
from minitx.tensorboard.plugin.worker import Worker
from minitx.tensorboard.text_process import MAX_MODELS, QUESTIONS, Models, answer, excuse
from tests.small import small_config, small_model, small_text
from tests.tensorboard.test_plugin import BASE, add_run, application, refusal

TEXT = "the cat sat"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a checkpoint of step 3, the weights of steps 1, 2 and 4 to 6, and a damaged one of step 7."""
    folder = tmp_path_factory.mktemp("worker")
    config = replace(small_config(folder), out=str(folder / "logs" / "small"))
    made = Run.create(config.out, config, Tokenizer.train([small_text(20)], config.tokenizer), {})
    size = made.tokenizer().vocab_size
    checkpoints.save(made.path, small_model(size, seed=3), {}, {"step": 3}, best=True, keep=1)
    for step in (1, 2, 4, 5, 6, 7):
        weights.keep(made.path, step, small_model(size, seed=step), made.about("id") or "")
    file = weights.path(made.path, 7)
    file.write_bytes(file.read_bytes()[:-9] + b"\xff" * 9)
    add_run(made.path, [1, 3])
    return made


@pytest.fixture
def warm(run: Run) -> Iterator[Worker]:
    made = Worker()
    yield made
    made.end()


def question(run: Run, step: int = 3, **fields: Any) -> dict[str, Any]:
    request = {"question": "without", "heads": [1], "how": "zero", **fields}
    return {"run": str(run.path), "step": step, "text": TEXT, **request}


def process_of(made: Worker) -> int:
    assert made.process is not None
    return made.process.pid


def test_the_second_question_is_answered_by_the_same_process_as_by_the_model(run: Run, warm: Worker) -> None:
    first = json.loads(warm.ask(question(run)))
    process = process_of(warm)
    second = json.loads(warm.ask(question(run, 1, question="ranking", positions=[4, 6], how="mean")))
    assert process_of(warm) == process
    tokenizer = run.tokenizer()
    tokens = tokenizer.encode(TEXT)
    expected = without(small_model(tokenizer.vocab_size, seed=3), tokenizer, tokens, {"heads": [1], "how": "zero"})
    assert first["before"]["tokens"] == expected["before"]["tokens"]
    assert first["after"]["loss"][:-1] == pytest.approx(expected["after"]["loss"][:-1], abs=1e-5)
    model = run.load_model("1", torch.device("cpu"))[0]
    assert second["without"] == pytest.approx(
        ranking(model, tokenizer, tokens, {"positions": [4, 6], "how": "mean"})["without"], abs=1e-5
    )
    with pytest.raises(BadRequest, match="There is no head 9"):
        warm.ask(question(run, heads=[9]))
    with pytest.raises(BadRequest) as refused:
        warm.ask(question(run, 7))
    assert "step-000007.safetensors is damaged" in str(refused.value) and str(run.path.parent) not in str(refused.value)
    assert process_of(warm) == process, "an error leaves the process warm"


def test_a_process_that_died_is_started_again(run: Run, warm: Worker) -> None:
    warm.ask(question(run))
    process = process_of(warm)
    os.kill(process, signal.SIGKILL)
    assert warm.process is not None and warm.process.wait() < 0
    assert warm.ask(question(run)) and process_of(warm) != process


def test_a_process_that_dies_while_it_answers_is_one_sentence(run: Run, warm: Worker) -> None:
    warm.ask(question(run))
    assert warm.process is not None
    dying = Timer(0.2, warm.process.kill)
    os.kill(process_of(warm), signal.SIGSTOP)
    dying.start()
    with pytest.raises(BadRequest, match="process ended: try again"):
        warm.ask(question(run))


def test_an_answer_that_is_too_large_ends_the_process(run: Run, warm: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "MAX_ANSWER_BYTES", 100)
    with pytest.raises(BadRequest, match="could not be run"):
        warm.ask(question(run))
    assert warm.process is None


def test_an_idle_process_ends(run: Run, warm: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "IDLE_SECONDS", 0.05)
    warm.ask(question(run))
    process = process_of(warm) if warm.process else None
    for _ in range(600):
        if warm.process is None:
            break
        time.sleep(0.05)
    assert warm.process is None
    if process is not None:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_the_process_ends_with_tensorboard(run: Run, warm: Worker) -> None:
    """Which closes the process's input, however it ends."""
    warm.ask(question(run))
    process = warm.process
    assert process is not None and process.stdin is not None
    process.stdin.close()
    assert process.wait(60) == 0


def test_every_question_has_its_fields_checked() -> None:
    assert QUESTIONS.keys() == FIELDS.keys()


@pytest.mark.parametrize(
    ("changes", "status", "sentence"),
    [
        ({"question": "nothing"}, 400, "There is no question 'nothing'"),
        ({"question": "snapshot"}, 400, "There is no question"),
        ({"question": None}, 422, "question is None"),
        ({"question": ["without"]}, 422, "question is"),
        ({"heads": None}, 422, "heads is None"),
        ({"heads": "1"}, 422, "heads is '1'"),
        ({"heads": [1.5]}, 422, "heads.0 is 1.5"),
        ({"heads": [-1]}, 422, "heads.0 is -1"),
        ({"heads": [True]}, 422, "heads.0 is True"),
        ({"heads": [10**9]}, 422, "heads.0 is"),
        ({"heads": list(range(5000))}, 422, "a list of"),
        ({"how": "off"}, 422, "zero or mean"),
        ({"question": "ranking", "positions": [-1, 2]}, 422, "positions.0 is -1"),
        ({"question": "ranking", "positions": [3]}, 422, "a list of 2 to 2 entries"),
        ({"step": 8}, 404, "keeps no weights of step 8"),
        ({"step": -1}, 422, "step is -1"),
        ({"run": "../small"}, 404, "There is no run"),
        ({"text": ""}, 400, "The text is empty"),
        ({"text": "a" * 4001}, 400, "at most 4000"),
        ({"text": 7}, 422, "text is 7"),
    ],
)
def test_a_bad_question_never_reaches_the_process(
    run: Run, changes: dict[str, Any], status: int, sentence: str
) -> None:
    client = application("--logdir", str(run.path.parent))
    request = {**question(run), "run": "small", **changes}
    assert sentence in refusal(client.post(f"{BASE}/ask", json=request, headers={"X-Minitx": "1"}), status)


def test_questions_are_for_the_tab_only_and_listed_steps_can_be_asked(run: Run) -> None:
    client: Client = application("--logdir", str(run.path.parent))
    request = {**question(run, 4), "run": "small"}
    assert "for the Attention tab only" in refusal(client.post(f"{BASE}/ask", json=request), 400)
    assert "POST only" in refusal(client.get(f"{BASE}/ask"), 400)
    assert json.loads(client.get(f"{BASE}/run?run=small").data)["checkpoints"] == [1, 2, 3, 4, 5, 6, 7]
    response = client.post(f"{BASE}/ask", json=request, headers={"X-Minitx": "1"})
    assert response.status_code == 200 and response.content_type.startswith("application/json")
    assert json.loads(response.data).keys() == {"before", "after"}


def test_few_models_are_kept_and_a_changed_file_is_read_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    models = Models()
    first = models.load(run.path, 1)
    assert models.load(run.path, 1) is first
    for step in (2, 3, 4, 1):
        models.load(run.path, step)
    assert models.load(run.path, 1) is first and len(models.kept) == MAX_MODELS
    models.load(run.path, 5)
    assert len(models.kept) == MAX_MODELS and models.load(run.path, 1) is first, "the one used last goes last"
    os.utime(weights.path(run.path, 1), ns=(1, 1))
    assert models.load(run.path, 1) is not first
    monkeypatch.setattr("minitx.tensorboard.text_process.MAX_MODEL_BYTES", models.size() / 4 * 2.5)
    models.load(run.path, 6)
    assert len(models.kept) == 2


def test_an_excuse_names_no_path(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(run.path)
    assert excuse(UserError(f"{path}/tokenizer.model has changed."), path) == "tokenizer.model has changed."
    assert excuse(UserError(f"{path} has no checkpoint."), path) == "the run has no checkpoint."
    assert excuse(OSError(5, "Input/output error", "/etc/x"), path) == worker.FAILED
    assert excuse(RuntimeError("a fault"), path) == worker.FAILED
    assert "a fault" in capsys.readouterr().err
    with pytest.raises(UserError, match="has no token"):
        answer(Models(), {**question(run), "text": ""})
