"""The last weights of a run are the mean over its last steps, also after a stop, and after other steps."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from minitx.bench.shapes import shape_of
from minitx.bench.sides import side_of
from minitx.bench.training import our_training
from minitx.config import TrainConfig
from minitx.run.folder import Run
from minitx.run.text import prepared_text
from minitx.system.runtime import choose_runtime
from minitx.training.averaging import WeightAverage
from minitx.training.loop import evaluate
from minitx.training.session import train
from tests.small import small_config


def weights_at(out: str, step: int) -> dict[str, torch.Tensor]:
    return load_file(Run(Path(out)).path / "checkpoints" / f"step-{step:06d}" / "model.safetensors")


def test_a_run_ends_with_the_mean_and_what_led_to_it_is_untouched(tmp_path: Path) -> None:
    changes = {"steps": 8, "eval_every": 8, "checkpoint_every": 1, "keep_checkpoints": 8, "sample_every": 0}
    plain = small_config(tmp_path, **changes)
    averaged = dataclasses.replace(
        plain, out=f"{plain.out}-averaged", train=dataclasses.replace(plain.train, average_fraction=0.5)
    )
    assert train(plain) == train(averaged) == 0
    before = [weights_at(plain.out, step) for step in range(1, 9)]
    after = weights_at(averaged.out, 8)
    for name, values in after.items():
        mean = torch.stack([weights[name].double() for weights in before[4:]]).mean(0)
        torch.testing.assert_close(values.double(), mean, atol=1e-6, rtol=0)
        assert torch.equal(weights_at(averaged.out, 7)[name], before[6][name])
    assert not torch.equal(after["embedding.weight"], before[7]["embedding.weight"])


def test_the_validation_loss_is_that_of_the_mean(tmp_path: Path) -> None:
    config = small_config(tmp_path, steps=8, eval_every=8, checkpoint_every=8, sample_every=0, average_fraction=1.0)
    assert train(config) == 0
    run, runtime = Run(Path(config.out)), choose_runtime("cpu", "float32", False, 1)
    model, _ = run.load_model("last", runtime.device)
    loss = evaluate(model, prepared_text(config, run).val, 4, runtime)
    assert run.read_json("summary.json")["val_loss"] == pytest.approx(loss, abs=1e-6)


def test_a_longer_run_leaves_the_old_mean_behind(tmp_path: Path) -> None:
    """What is averaged then are its own last steps."""
    config = small_config(tmp_path, steps=4, eval_every=4, checkpoint_every=1, sample_every=0, average_fraction=0.5)
    assert train(config) == 0
    plain = f"{config.out}-plain"
    shutil.copytree(config.out, plain)
    longer = dataclasses.replace(config.train, steps=8, keep_checkpoints=4)
    without = dataclasses.replace(longer, average_fraction=0.0)
    assert train(dataclasses.replace(config, train=longer), resume=config.out) == 0
    assert train(dataclasses.replace(config, train=without), resume=plain) == 0
    after, seventh = weights_at(config.out, 8)["embedding.weight"], weights_at(config.out, 7)["embedding.weight"]
    assert not torch.equal(after, seventh)
    mean = torch.stack([weights_at(plain, step)["embedding.weight"] for step in range(5, 9)]).mean(0)
    torch.testing.assert_close(after, mean, atol=1e-6, rtol=0)
    for begin, expected in ((4, 0.5), (3, 0.0)):
        weight = torch.zeros(1)
        average = WeightAverage([weight], TrainConfig(steps=8, average_fraction=0.5))
        average.load_state_dict({"begin": begin, "count": 2, "mean": [torch.ones(1)]})
        average.add(7)
        average.add(8)
        assert weight.item() == pytest.approx(expected)
    off = WeightAverage([weight], TrainConfig(steps=8))
    off.load_state_dict({"begin": 4, "count": 2, "mean": [torch.ones(1)]})
    assert not off.state_dict()["mean"]


def test_the_bench_trains_with_it(tmp_path: Path) -> None:
    tokens, runtime = np.arange(200, dtype=np.uint16) % 30, choose_runtime("cpu", "float32", False, 1)

    def weights_after(steps: int, fraction: float) -> torch.Tensor:
        config = small_config(tmp_path, steps=4, average_fraction=fraction)
        training = our_training(shape_of("", config, 30), tokens, runtime, 1)
        side = side_of("", training, lambda: 0.0, 1, lambda number: 1.0)
        side.train(steps, runtime.device)
        return training.parameters[0].detach()

    mean = (weights_after(3, 0.0) + weights_after(4, 0.0)) / 2
    torch.testing.assert_close(weights_after(4, 0.5), mean, atol=1e-6, rtol=0)
    assert not torch.equal(mean, weights_after(4, 0.0))


def test_a_mean_of_another_shape_is_refused() -> None:
    average = WeightAverage([torch.zeros(2)], TrainConfig(steps=8, average_fraction=0.5))
    with pytest.raises(ValueError, match="other shapes"):
        average.load_state_dict({"begin": 4, "count": 1, "mean": [torch.zeros(3)]})
