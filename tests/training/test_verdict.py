"""What a run's figures say of its loss: made-up histories, one for each rule."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from minitx.config import Config, ModelConfig, TrainConfig
from minitx.data import baselines as programs
from minitx.data.builtin import repeated_letters
from minitx.training import verdict_figures
from minitx.training.session import train
from minitx.training.verdict import Figures, Yardstick, advise, amount, gap, goodness, reading, verdict
from minitx.training.verdict_figures import baselines, entropy_of_repeats, evaluations, training_windows
from tests.small import small_config
from tests.training.test_report import opened

FALLING = [(20, 5.0), (40, 4.0), (60, 3.5), (80, 3.2), (100, 3.0)]
LEVEL = [(40, 3.0), (80, 3.0), (100, 3.0)]
BESIDE = Yardstick(1.5, "bits per byte", None, 2.0, 1.8)


def figures(**changed: Any) -> Figures:
    """A run of 100 steps that learned well and could go on."""
    usual = Figures(3.0, 3.0, 100, 2.99, 0.05, FALLING, 2.0, 5.0, BESIDE)
    return dataclasses.replace(usual, **changed)


def config(init_from: str | None = None, **changed: Any) -> Config:
    train = {name: value for name, value in changed.items() if hasattr(TrainConfig, name)}
    model = {name: value for name, value in changed.items() if name not in train}
    return Config(init_from=init_from, train=TrainConfig(**{"steps": 100, **train}), model=ModelConfig(**model))


POOR = BESIDE._replace(loss=1.9)
BY_HEART = {"val_loss": 4.0, "train_loss": 1.0, "epochs": 50.0}
RULES: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, float] | None]] = {
    "went on for too long": ({**BY_HEART, "best_step": 20}, {}, ("train.steps", 20)),
    "learned by heart late": ({**BY_HEART, "best_step": 80}, {}, ("model.dropout", 0.1)),
    "learned by heart with some dropout": (
        {**BY_HEART, "best_step": 80},
        {"dropout": 0.1},
        ("model.dropout", 0.2),
    ),
    "learned by heart, yet the loss still falls": ({"train_loss": 2.0, "epochs": 20.0}, {}, None),
    "a gap before anything was learned": (
        {"train_loss": 2.0, "epochs": 20.0, "yardstick": BESIDE._replace(loss=3.5)},
        {},
        ("train.steps", 400),
    ),
    "learned by heart with dropout": ({**BY_HEART, "best_step": 80}, {"dropout": 0.2}, None),
    "diverged": ({"val_loss": 4.0, "train_loss": 4.0, "best_step": 40}, {}, ("train.muon_learning_rate", 0.007)),
    "a rate far too low": (
        {"yardstick": POOR},
        {"learning_rate": 1e-5, "optimizer": "adamw"},
        ("train.learning_rate", 5e-3),
    ),
    "a rate far off, yet the loss is good": ({}, {"learning_rate": 1e-5}, ("train.steps", 200)),
    "far too short": ({"yardstick": POOR, "epochs": 0.1}, {}, ("train.steps", 400)),
    "too short": ({}, {}, ("train.steps", 200)),
    "a gap without a second reading": ({"train_loss": 2.0, "epochs": 0.9}, {}, ("train.steps", 200)),
    "a gap that chance explains": ({"train_loss": 2.5, "gap_error": 0.3}, {}, ("train.steps", 200)),
    "level": ({"history": LEVEL}, {}, ("model.n_layer", 6)),
    "many tokens": ({"tokens_per_parameter": 30.0}, {"n_layer": 1}, ("model.n_layer", 2)),
    "pruned, so its layers are given": ({"history": LEVEL}, {"kept_heads": [[0]] * 4}, None),
    "near the entropy": ({"yardstick": Yardstick(0.88, "nats", 0.85)}, {}, None),
    "far from the entropy": ({"yardstick": Yardstick(1.2, "nats", 0.85)}, {}, ("train.steps", 200)),
    "a low rate on a model that has learned before": (
        {"yardstick": POOR},
        {"learning_rate": 2e-5, "optimizer": "adamw", "init_from": "runs/smol"},
        ("train.steps", 400),
    ),
    "level, on the model of another run": ({"history": LEVEL}, {"init_from": "runs/smol"}, None),
    "too few steps to judge": ({"yardstick": POOR}, {"steps": 49}, None),
    "one evaluation": ({"history": [(100, 3.0)]}, {}, ("train.steps", 200)),
    "no evaluation that can be read": ({"history": []}, {}, ("train.steps", 200)),
}


@pytest.mark.parametrize("name", RULES)
def test_each_rule_names_one_setting(name: str) -> None:
    measured, settings, expected = RULES[name]
    advice = advise(figures(**measured), config(**settings))
    assert (advice and (advice.setting, advice.value)) == expected
    if advice:  # and the configuration takes the value
        section, setting = advice.setting.split(".")
        before = getattr(config(**settings), section)
        assert getattr(before, setting) == advice.now
        dataclasses.replace(before, **{setting: advice.value})


@pytest.mark.parametrize("name", RULES)
def test_sentences_are_few_and_their_figures_go_to_json(name: str) -> None:
    measured, settings, expected = RULES[name]
    sentences, data = verdict(figures(**measured), config(**settings))
    assert 4 <= len(sentences) <= 5 and all(len(sentence) < 160 for sentence in sentences)
    assert sentences[-1].startswith(("Worth changing first: ", "No setting "))
    said = "more text would." if "train_loss" in measured else "stands out."
    said = "after so few steps (49): from 50 on there is advice." if settings.get("steps") == 49 else said
    assert sentences[-1].endswith(said) or expected is not None
    assert (" to " in sentences[-1]) == (expected is not None)
    assert json.loads(json.dumps(data, allow_nan=False))["sentences"] == sentences


@pytest.mark.parametrize("name", RULES)
def test_all_losses_are_in_the_unit_of_the_first(name: str) -> None:
    measured, settings, _ = RULES[name]
    usual = figures(**measured)
    scaled = dataclasses.replace(usual, yardstick=usual.yardstick._replace(scale=10.0))
    sentences = " ".join(verdict(scaled, config(**settings))[0])
    assert f"{10 * usual.train_loss:.3f} {usual.yardstick.unit} on training text" in sentences
    assert f"{10 * usual.val_loss:.3f} on validation text" in sentences
    assert not usual.rose or f"({10 * usual.best_val_loss:.3f} {usual.yardstick.unit}) and rose" in sentences
    assert " fell by " not in sentences or f" fell by 2.000 {usual.yardstick.unit}, " in sentences


def test_by_heart_is_said_only_where_validation_rose() -> None:
    assert "it learned its text by heart (" in gap(figures(**BY_HEART, best_step=20))
    assert "it begins to learn its text by heart (" in gap(figures(train_loss=2.0, epochs=20.0))


def test_reasons_agree_with_the_times_that_the_text_was_read() -> None:
    """Beside "read its training text 1.3 times" stood "it has not read its text twice"."""
    sentences, _ = verdict(figures(epochs=1.3, train_loss=2.0), config())
    assert sentences[1].startswith("The model read its training text 1.3 times")
    assert sentences[2].endswith("no overfitting, for it read its text fewer than 2 times.")
    assert sentences[-1].endswith(": it read fewer than 20 tokens a parameter, and its loss still fell.")


def test_a_fall_at_the_end_is_not_called_proof() -> None:
    """With a rate that decays to 0 the loss falls at the end of every run."""
    sentences, _ = verdict(figures(), config())
    assert (
        "Since step 80 validation loss fell by 0.200 bits per byte, also because the learning rate falls to 0."
        in sentences
    )


@pytest.mark.parametrize(
    ("yardstick", "answer"),
    [
        (BESIDE, "better than xz and the n-gram."),
        (BESIDE._replace(loss=1.9), "better than xz."),
        (BESIDE._replace(loss=2.1), "worse than both."),
        (BESIDE._replace(loss=1.9, xz=1.7, ngram=2.0), "better than the n-gram."),
        (Yardstick(1.7, "nats per token", 0.85), "The best possible is 0.850; this is 100% above it."),
    ],
)
def test_a_loss_is_held_against_what_is_known(yardstick: Yardstick, answer: str) -> None:
    assert goodness(yardstick).startswith(f"Is {yardstick.loss:.3f} {yardstick.unit} good? ")
    assert goodness(yardstick).endswith(answer)


def test_a_stream_not_read_to_its_end_was_read_less_than_once() -> None:
    assert " text less than once, 5.0 tokens " in reading(figures(epochs=0))


def test_amounts_have_two_digits() -> None:
    assert [amount(number) for number in (0.0, 0.0123, 0.21, 4.24, 42.4, 1234.5)] == [
        "0",
        "0.012",
        "0.21",
        "4.2",
        "42",
        "1,234",
    ]


def test_training_text_is_measured_as_validation_text_is(tmp_path: Path) -> None:
    """Without dropout, in windows as long; and training goes on as before."""
    with opened(tmp_path) as report:
        training = report.training
        training.model.train()
        before = torch.get_rng_state()
        losses, length = training_windows(training)
        assert torch.equal(before, torch.get_rng_state()) and training.model.training
        tokens, model = training.prepared.train.astype(np.int64), training.model.eval()
        assert length == 32 and len(losses) == (len(training.prepared.val) - 1) // 32
        last = torch.from_numpy(tokens[-length - 1 :])
        with torch.no_grad():
            expected = F.cross_entropy(model(last[None, :-1])[0].double(), last[1:])
        assert losses[-1] == pytest.approx(float(expected), rel=3e-3)  # of bfloat16 where the processor has it


def test_baselines_are_computed_once_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as report:
        prepared = report.training.prepared
    train, val = (programs.decoded(tokens, prepared.tokenizer) for tokens in (prepared.train, prepared.val))
    assert (len(train), len(val)) == (prepared.train_bytes, prepared.val_bytes)
    expected = programs.xz_bits_per_byte(train, val), programs.ngram_bits_per_byte(train, val, 5)
    assert baselines(prepared) == expected
    kept = prepared.folder / "baselines.json"
    calls: list[bytes] = []

    def counted(train: bytes, val: bytes) -> float:
        calls.append(train)
        return 9.0

    monkeypatch.setattr(verdict_figures, "xz_bits_per_byte", counted)
    assert baselines(prepared) == expected and not calls
    kept.write_bytes(kept.read_bytes().replace(b"0", b"1"))
    assert baselines(prepared)[0] == 9.0 and len(calls) == 1  # a damaged file is written anew
    monkeypatch.setattr(verdict_figures, "MOST_TRAIN", 1000)
    baselines(prepared)
    assert train.endswith(calls[1]) and 990 < len(calls[1]) <= 1000  # a longer text costs no more


def test_evaluations_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    """A run that is trained to its end must not end in an error about its logs."""
    with opened(tmp_path) as report:
        run = report.training.run
    for step, loss in ((1, None), (2, 3.5), (3, "3.4"), (4, math.nan), (5, 3.0)):
        run.append_metrics({"step": step, "val_loss": loss})
    assert evaluations(run) == [(2, 3.5), (5, 3.0)]


def test_the_entropy_of_repeats_is_that_of_their_documents() -> None:
    """Of 9 lengths, as frequent, and letters in any order: -log2 p of each document, over all of them."""
    documents = list(repeated_letters())
    assert {len(document) for document in documents} == {2 * n for n in range(8, 17)}
    bits = [math.log2(9) + sum(math.log2(16 - i) for i in range(len(text) // 2)) for text in documents]
    assert entropy_of_repeats() == pytest.approx(sum(bits) / sum(map(len, documents)), rel=1e-3)


def test_a_run_ends_with_its_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the terminal, in summary.json and in TensorBoard, all the same."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert train(small_config(tmp_path)) == 0
    run = tmp_path / "runs" / "small"
    summary = json.loads((run / "summary.json").read_text("utf-8"))
    told = summary["verdict"]
    assert "\n".join(["", *told["sentences"], ""]) in capsys.readouterr().out
    assert told["sentences"][0].startswith(f"Is {summary['val_bits_per_byte']:.3f} bits per byte good? ")
    assert 0 < told["xz"] < 3 and 0 < told["ngram"] < 3 and told["entropy"] is None
    assert f", {summary['val_bits_per_byte']:.3f} on validation text" in told["sentences"][2]
    assert told["train_loss"] == pytest.approx(summary["val_loss"], abs=0.2)
    in_training = len(opened(tmp_path).training.prepared.train) - 1
    assert told["epochs"] == pytest.approx(12 * 4 * 32 / in_training)
    events = EventAccumulator(str(run))
    events.Reload()
    (card,) = events.Tensors("Run/is this loss good")
    assert card.step == 12 and card.tensor_proto.string_val[0].decode() == "\n\n".join(told["sentences"])


def test_a_text_too_short_for_baselines_has_a_verdict(tmp_path: Path) -> None:
    config = small_config(tmp_path, steps=2, sample_every=0)
    (tmp_path / "text.txt").write_text("ab" * 20, "utf-8")
    shorter = dataclasses.replace(config.model, context_length=8)
    assert train(dataclasses.replace(config, model=shorter)) == 0
    summary = json.loads((tmp_path / "runs" / "small" / "summary.json").read_text("utf-8"))
    assert re.match("The model read its training text .* times", summary["verdict"]["sentences"][-3])
