"""A loaded run: its losses against a float64 loop and a model cut by hand, its text, and which run `train` returns."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

import minitx
from minitx.__main__ import main
from minitx.data.tokenizer import Tokenizer
from minitx.model import Block, Transformer
from minitx.run.folder import Run
from tests.heads.test_what_if import KINDS, model_of
from tests.small import Letters

TEXT = "the cat sat on a mat and saw the dog that ate her hat"


class LettersAndEnd(Letters):
    """Letters, and the token that begins a document."""

    end_of_document = 0


def run_of(**kind: Any) -> minitx.LoadedRun:
    """A run of no folder."""
    return minitx.LoadedRun(model_of(**kind), cast(Tokenizer, LettersAndEnd()))


def loss_by_hand(model: Transformer, without: list[tuple[int, int]]) -> float:
    """Nats per token in float64, window by window, the columns of the heads' output projection set to 0."""
    reference = copy.deepcopy(model).double().eval()
    for layer, head in without:
        weight = cast(Any, cast(Block, reference.blocks[layer]).attention).output.weight
        place = 8 * model.config.heads_in(layer).index(head)
        weight.data[:, place : place + 8] = 0
    tokens, losses = [0, *Letters().encode(TEXT)], []
    for start in range(0, len(tokens) - 1, 16):
        window = tokens[start : start + 17]
        logits = reference(torch.tensor([window[:-1]]))[0].detach().log_softmax(-1)
        losses += [-float(logits[place, token]) for place, token in enumerate(window[1:])]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("without", [[], [(1, 3)], [(1, 0), (1, 3)]])
def test_the_loss_without_heads(kind: dict[str, Any], without: list[tuple[int, int]]) -> None:
    run = run_of(**kind)
    without = [(layer, head) for layer, head in without if head in run.model.config.heads_in(layer)]
    assert run.loss(TEXT, without=without) == pytest.approx(loss_by_hand(run.model, without), abs=1e-5)
    assert run.loss(TEXT, without=np.array(without)) == run.loss(TEXT, without=without)
    assert len(without) != 1 or run.loss(TEXT, without=without[0]) == run.loss(TEXT, without=without)
    assert run.model.training  # it is left in the mode that it had


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda run: run.loss(TEXT, without=[(0, 4)]), "no head 0.4: layer 0 has heads 1, 2."),
        (lambda run: run.loss(TEXT, without=[(0, 0)]), "no head 0.0"),  # pruned
        (lambda run: run.loss(TEXT, without=[(0, -1)]), "no head 0.-1"),  # not the last one
        (lambda run: run.loss(TEXT, without=[(2, 0)]), "no head 2.0: the last layer is 1."),
        (lambda run: run.loss(TEXT, without=(2, 0)), "no head 2.0: the last layer is 1."),
        (lambda run: run_of(kept_heads=[[], [0]]).loss(TEXT, without=(0, 1)), "no head 0.1: layer 0 has no heads."),
        (lambda run: run.loss(TEXT, without=[0, 1, 2]), "without is .0, 1, 2., but it takes .layer, head. of each"),
        (lambda run: run.loss(TEXT, without="0.1"), "without is '0.1'"),
        (lambda run: run.loss(TEXT, without=1), "without is 1"),
        (lambda run: run.loss(5), "The text is 5, but it must be a string"),
        (lambda run: run.generate(5), "The text is 5"),
        (lambda run: minitx.record(run, cast(Any, ["the"])), "The text is .'the'."),
        (lambda run: run.loss(""), "The text is empty"),
        (lambda run: run.loss(), "has no validation text: give a text"),
        (lambda run: run.generate("the", temperature=-1), "temperature is -1"),
        (lambda run: minitx.load("nowhere"), "There is no run nowhere"),
        (lambda run: minitx.read_config("nowhere.yaml"), "There is no configuration nowhere.yaml"),
    ],
)
def test_what_a_person_can_get_wrong(call: Any, sentence: str) -> None:
    with pytest.raises(minitx.UserError, match=sentence):
        call(run_of(kept_heads=[[1, 2], [0, 1, 2, 3]]))


def test_it_writes_what_generate_py_writes(run: minitx.LoadedRun, capsys: pytest.CaptureFixture[str]) -> None:
    text = run.generate("the cat", max_new_tokens=12, seed=3, top_k=5)
    options = ["--prompt", "the cat", "--max_new_tokens", "12", "--seed", "3", "--top_k", "5", "--json"]
    assert main(["generate", "runs/small", *options]) == 0
    assert json.loads(capsys.readouterr().out)["completion"] == text != run.generate("the cat", max_new_tokens=12)


def test_it_stops_before_a_text_not_before_its_letters(run: minitx.LoadedRun) -> None:
    text = run.generate("the cat", max_new_tokens=30)
    word = text[5:8]
    assert run.generate("the cat", max_new_tokens=30, stop=word) == text.partition(word)[0]
    assert run.generate("the cat", max_new_tokens=30, stop=["@", word]) == text.partition(word)[0]


def test_the_loss_on_the_validation_split_is_that_of_training(run: minitx.LoadedRun) -> None:
    assert run.folder is not None
    summary = run.folder.read_json("summary.json")
    assert run.loss() == pytest.approx(summary["best_val_loss"], abs=1e-5)
    assert run.step == summary["best_step"]


def test_training_returns_its_own_run_where_two_begin_at_once(
    run: minitx.LoadedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = dataclasses.replace(Run(Path("runs/small")).config(), out=str(tmp_path / "run"), seed=2, threads="auto")
    (tmp_path / "runner").mkdir()  # another name

    def train(config: minitx.Config) -> int:
        for name, seed in (("run", 1), ("run-2", 2), ("run-3", 3)):
            shutil.copytree("runs/small", tmp_path / name)
            begun = Run(tmp_path / name)
            begun.save_config(dataclasses.replace(begun.config(), out=str(begun.path), seed=seed, threads=1))
        return 0

    monkeypatch.setattr("minitx.training.session.train", train)
    trained = minitx.train(config)
    assert trained.folder is not None and trained.folder.path == tmp_path / "run-2"


@pytest.mark.parametrize(("status", "kind"), [(130, KeyboardInterrupt), (143, SystemExit)])
def test_training_that_is_stopped(
    status: int, kind: type[BaseException], run: minitx.LoadedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minitx.training.session.train", lambda config: status)
    with pytest.raises(kind):
        minitx.train(Run(Path("runs/small")).config())
