"""Seconds to a loss: both sides see the same characters, take turns, and stop their clock during evaluation."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from minitx.bench.peers.nanogpt import COMMANDS, command_training
from minitx.bench.settings import BenchConfig
from minitx.bench.sides import Point, Side, take_turns, with_steps
from minitx.bench.suite import Bench, Table
from minitx.bench.suites import loss
from minitx.data.prepare import prepare
from minitx.system.errors import UserError
from tests.bench.small import cpu, nano_gpt_checkout
from tests.small import small_text


@pytest.fixture
def settings(tmp_path: Path) -> BenchConfig:
    text, config = tmp_path / "text.txt", tmp_path / "small.yaml"
    text.write_text(small_text(), "utf-8")
    config.write_text(
        yaml.safe_dump(
            {
                "tokenizer": {"type": "char"},
                "model": {"n_layer": 1, "n_head": 2, "d_model": 16, "context_length": 64},
                "train": {"steps": 200, "batch_size": 4, "warmup_steps": 2},
            }
        )
    )
    return BenchConfig(
        suite="loss",
        text=str(text),
        loss_config=str(config),
        nanogpt=str(nano_gpt_checkout(tmp_path)),
        steps=40,
        turns=3,
        loss_target=3.0,
        device="cpu",
        threads=1,
        plot=str(tmp_path / "curves.png"),
    )


def measure(settings: BenchConfig) -> Table:
    (table,) = loss.run(Bench(settings, [], cpu()))
    return table


def side(curve: list[Point]) -> Side:
    return Side("a", 1, 1, lambda number: None, lambda: 0.0, 1, curve)


def test_both_sides_come_to_their_end(settings: BenchConfig) -> None:
    table = measure(settings)
    assert [row["candidate"] for row in table.rows] == ["nanoGPT's command", "minitx"]
    assert [row["steps"] for row in table.rows] == [40, 4]  # minitx takes the same share of its 200 as 40 are of 2,000
    for side in ("nanoGPT's command", "minitx"):
        curve = table.raw["curves"][side]
        assert curve["seconds"] == sorted(curve["seconds"])
    assert table.raw["curves"]["minitx"]["steps"] == [1, 2, 3, 4]
    assert Path(str(settings.plot)).read_bytes()[:4] == b"\x89PNG"


def test_both_validate_on_the_same_characters(settings: BenchConfig) -> None:
    command = with_steps(COMMANDS["cpu"], 2)
    _, theirs = command_training(command, str(settings.nanogpt), str(settings.text), cpu(), 1)
    text = small_text()
    characters = sorted(set(text))
    val = "".join(characters[number] for number in theirs)
    assert val == text[int(0.9 * len(text)) :]

    config = loss.config_of(settings)
    prepared = prepare(config.data, config.tokenizer, config.seed, progress=False)
    end = prepared.tokenizer.end_of_document
    assert prepared.tokenizer.decode(np.asarray(prepared.val)) == val
    assert len(val) == sum(int(token) != end for token in prepared.val)


def test_validation_of_the_peer_is_the_mean_over_all_but_the_first(settings: BenchConfig) -> None:
    command = with_steps(COMMANDS["cpu"], 2)
    side = loss.nano_gpt_side(settings, command, cpu())
    training, val = command_training(command, str(settings.nanogpt), str(settings.text), cpu(), settings.seed)
    model, tokens = training.model.gpt, torch.from_numpy(val.astype(np.int64))
    with torch.no_grad():  # the stand-in sees one character at a time, so windows do not matter to it
        logits = model.output(model.embedding(tokens[:-1])).double()
    expected = -logits.log_softmax(-1)[torch.arange(len(tokens) - 1), tokens[1:]].mean()
    assert side.validate() == pytest.approx(float(expected), abs=1e-5)
    assert training.model.training


def test_the_clock_leaves_evaluation_out_and_both_end_together() -> None:
    order: list[str] = []

    def validate() -> float:
        order.append("V")
        sum(range(3_000_000))
        return 2.0

    def ticking(name: str, steps: int) -> Side:
        return Side(name, steps, 2, lambda number: order.append(name), validate, 1)

    sides = [ticking("a", 8), ticking("b", 4)]
    take_turns(sides, 4, torch.device("cpu"), "loss")
    assert "".join(order) == "aabaaVbVaabaaVbV"
    assert [[point.steps for point in side.curve] for side in sides] == [[4, 8], [2, 4]]
    assert sides[0].seconds < 0.02


def test_the_first_evaluation_at_or_below_counts() -> None:
    trained = side([Point(1, 0.1, 3.0), Point(2, 0.2, 1.9), Point(3, 0.3, 1.88), Point(4, 0.4, 1.7)])
    assert trained.reaches(1.88) == Point(3, 0.3, 1.88)
    assert trained.reaches(1.6) is None


def test_a_target_that_is_not_reached_is_said(settings: BenchConfig) -> None:
    table = measure(dataclasses.replace(settings, loss_target=0.001, plot=None))
    assert table.raw["ratio"] is None
    assert table.rows[1]["seconds to 0.001"] == "not reached"
    assert any("does not reach" in note for note in table.notes)


def test_a_configuration_that_is_not_by_characters(settings: BenchConfig, tmp_path: Path) -> None:
    config = tmp_path / "other.yaml"
    config.write_text("tokenizer:\n  type: bpe\n")
    with pytest.raises(UserError, match="tokenizer of type bpe"):
        loss.config_of(dataclasses.replace(settings, loss_config=str(config)))


def test_a_text_that_is_not_utf8(settings: BenchConfig) -> None:
    Path(str(settings.text)).write_bytes(b"ab\xff")
    with pytest.raises(UserError, match="not valid UTF-8"):
        measure(settings)


def test_a_picture_with_one_curve_far_from_the_target(tmp_path: Path) -> None:
    loss.draw([side([Point(1, 1.0, 4.0)])], 1.88, str(tmp_path / "one.svg"))
    assert (tmp_path / "one.svg").read_text().startswith("<?xml")


@pytest.mark.skipif("MINITX_NANOGPT" not in os.environ, reason="MINITX_NANOGPT names no checkout of nanoGPT")
def test_against_the_real_nano_gpt(settings: BenchConfig) -> None:
    real = dataclasses.replace(settings, nanogpt=os.environ["MINITX_NANOGPT"], plot=None)
    table = measure(real)
    assert table.rows[0]["steps"] == 40
