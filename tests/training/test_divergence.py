"""Diverging training: one sentence, the last good checkpoint, and the batch to look at."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from minitx.model import next_token_loss
from minitx.run.folder import Run
from minitx.system.errors import UserError
from minitx.training.session import train
from tests.small import small_config
from tests.training.test_loop import exact_metrics


def test_a_learning_rate_beyond_reason_diverges_with_a_sentence(tmp_path: Path) -> None:
    """For real: weights of 1e38 overflow."""
    config = small_config(tmp_path, steps=40, optimizer="adamw", checkpoint_every=2, eval_every=40, sample_every=0)
    assert train(dataclasses.replace(config, train=dataclasses.replace(config.train, steps=4))) == 0
    good = (Path(config.out) / "checkpoints" / "step-000004" / "model.safetensors").read_bytes()
    wild = dataclasses.replace(Run(Path(config.out)).config(), train=dataclasses.replace(
        config.train, learning_rate=1e38, grad_clip=0.0, checkpoint_every=100
    ))  # fmt: skip
    with pytest.raises(UserError) as caught:
        train(wild, resume=config.out)
    said = str(caught.value)
    assert "at step 6: the learning rate is probably too high" in said and "set train.grad_clip to 1" in said
    assert f"step-000004 is as it was: go on from it with minitx train --resume {config.out}" in said
    assert (Path(config.out) / "checkpoints" / "step-000004" / "model.safetensors").read_bytes() == good
    record = Run(Path(config.out)).read_json("diverged-000006.json")
    assert {record["loss"], record["grad_norm"]} & {"nan", "inf"} and len(record["batch"]) == 4
    tokenizer = Run(Path(config.out)).tokenizer()
    assert all(row["text"] == tokenizer.decode(row["tokens"]) and len(row["tokens"]) == 32 for row in record["batch"])
    tame = dataclasses.replace(Run(Path(config.out)).config(), train=dataclasses.replace(config.train, steps=8))
    assert train(tame, resume=config.out) == 0


def damaged_at(steps: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the loss of some steps be what a bad batch makes of it, not a number, through the real backward pass."""
    original, calls = next_token_loss, [0]

    def loss(logits: torch.Tensor, targets: torch.Tensor, **options: Any) -> torch.Tensor:
        if not torch.is_grad_enabled():
            return original(logits, targets, **options)
        calls[0] += 1
        return original(logits, targets) * (torch.nan if calls[0] in steps else 1.0)

    monkeypatch.setattr("minitx.training.loop.next_token_loss", loss)


def test_a_single_bad_step_is_skipped_only_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_config(tmp_path, skip_bad_steps=1)
    damaged_at((5,), monkeypatch)
    assert train(config) == 0
    assert "at step 5 is not finite, so the step is left out" in capsys.readouterr().err
    lines = exact_metrics(config.out)
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert [line["step"] for line in lines if line["train_loss"] is None] == [5]
    assert (Path(config.out) / "diverged-000005.json").exists()
    assert Run(Path(config.out)).checkpoint("last").progress.skipped == 1
    damaged_at((5, 7), monkeypatch)
    with pytest.raises(UserError, match="at step 7"):
        train(config)
    damaged_at((5,), monkeypatch)
    with pytest.raises(UserError, match="at step 5"):
        train(dataclasses.replace(config, train=dataclasses.replace(config.train, skip_bad_steps=0)))


def test_weights_that_are_lost_are_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of the last step before a checkpoint was finite, but its update was not."""
    import minitx.training.loop

    original, calls = minitx.training.loop.train_step, [0]

    def breaking(loss_of: Any, parameters: list[torch.nn.Parameter], *arguments: Any) -> Any:
        result = original(loss_of, parameters, *arguments)
        calls[0] += 1
        if calls[0] == 8:
            with torch.no_grad():
                parameters[0][0, 0] = torch.inf
        return result

    monkeypatch.setattr(minitx.training.loop, "train_step", breaking)
    config = small_config(tmp_path)
    with pytest.raises(UserError, match=r"embedding.weight is not finite after step 8"):
        train(config)
    assert Run(Path(config.out)).checkpoint("last").step == 6
