"""`minitx prune` in this process: the new run is whole and describes itself correctly."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from minitx.__main__ import main
from minitx.config import Config
from minitx.data.prepare import prepare
from minitx.run.folder import Run
from minitx.studies.pruned_run import masked_difference
from minitx.system.runtime import choose_runtime
from minitx.training.loop import evaluate
from minitx.training.session import train
from tests.small import small_config


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run of 30 steps with two key-value heads for four heads in each of two layers."""
    config = small_config(tmp_path, steps=30, eval_every=30, checkpoint_every=30, sample_every=0)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, n_head=4, n_kv_head=2))
    assert train(config) == 0
    return Run(Path(config.out))


def val_loss(run: Run) -> float:
    """Of the last checkpoint, over all validation text."""
    config: Config = run.config()
    prepared = prepare(config.data, config.tokenizer, config.seed, progress=False, tokenizer_model=run.tokenizer())
    model, _ = run.load_model("last", torch.device("cpu"))
    return evaluate(model, prepared.val, 4, choose_runtime("cpu", "float32", False, 1))


def test_named_heads_go_and_what_is_left_is_a_whole_run(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    new = f"{run.path}-small"
    assert main(["prune", str(run.path), "--heads", "0.1,1.2,1.3", "--out", new]) == 0
    assert "removed 0.1, 1.2, 1.3" in capsys.readouterr().out
    pruned = Run.find(new)
    assert pruned.config().model.kept_heads == [[0, 2, 3], [0, 1]]
    pruning = pruned.read_json("pruning.json")
    before, after = pruning["before"], pruning["after"]
    assert pruning["largest_logit_difference_to_masked"] <= 1e-5
    whole, smaller = (either.load_model("last", torch.device("cpu"))[0] for either in (run, pruned))
    assert masked_difference(whole, smaller, [(0, 0), (1, 2), (1, 3)], torch.arange(32)[None]) > 1e-3
    assert before["validation loss (nats per token)"] == pytest.approx(val_loss(run))
    assert after["validation loss (nats per token)"] == pytest.approx(val_loss(pruned))
    # 3 query heads with their columns of the output projection, 1 key-value head; each 4 wide, d_model 16
    assert before["parameters"] - after["parameters"] == (3 * 2 + 1 * 2) * 4 * 16
    assert (before["cache bytes per token"], after["cache bytes per token"]) == (2 * 4 * 4 * 4, 2 * 3 * 4 * 4)

    now, old = pruned.checkpoint("last"), run.checkpoint("last")
    assert (now.step, now.progress.tokens, now.batches) == (30, old.progress.tokens, old.batches)
    summary = pruned.read_json("summary.json")
    assert summary["val_loss"] == pruned.metrics()[-1]["val_loss"] == after["validation loss (nats per token)"]
    events = EventAccumulator(new)
    events.Reload()
    logged = {
        name: [event.value for event in events.Scalars(f"Loss/{name}")] for name in ("validation", "best validation")
    }
    assert [*logged.values()] == [[pytest.approx(val_loss(pruned))]] * 2
    entropy = np.array(pruned.heads()[0]["scores"]["entropy"], dtype=float)  # null of a head that is gone
    assert np.isnan(entropy).tolist() == [[False, True, False, False], [False, False, True, True]]
    shown = [events.Scalars(f"heads: entropy/layer {layer}, mean")[0].value for layer in range(2)]
    assert shown == pytest.approx(np.nanmean(entropy, axis=1))

    assert main(["generate", new, "--prompt", "the", "--max_new_tokens", "40"]) == 0
    assert capsys.readouterr().out.startswith("the")
    assert main(["train", "--resume", new, "--train.steps", "60"]) == 0
    assert [line["step"] for line in pruned.metrics()] == list(range(30, 61))
    assert val_loss(pruned) < after["validation loss (nats per token)"]
    capsys.readouterr()
    assert main(["export", new, f"{new}-exported"]) == 2
    assert capsys.readouterr().err.startswith("error: The model has lost heads by pruning")
    assert main(["prune", new, "--heads", "0.1"]) == 2
    assert "no head 0.1 to remove: the model has in layer 0 0.0, 0.2, 0.3; in layer 1" in capsys.readouterr().err


def test_a_share_is_kept_fine_tuned_and_the_curve_drawn(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "--keep_fraction",
        "0.5",
        "--finetune_steps",
        "10",
        "--curve",
        "--random_orders",
        "2",
        "--tokens",
        "300",
    ]
    assert main(["prune", str(run.path), *arguments]) == 0
    pruned = Run.find(f"{run.path}-pruned")
    kept = pruned.config().model.kept_heads
    assert kept is not None and sum(map(len, kept)) == 4
    assert [line["step"] for line in pruned.metrics()] == list(range(30, 41))
    curve = pruned.read_json("pruning_curve.json")
    assert sorted(curve["orders"]["greedy"][:4]) == pruned.read_json("pruning.json")["removed"]
    assert [len(losses) for losses in (*curve["losses"].values(), *curve["random_losses"])] == [9] * 4
    ends = np.array([[losses[0], losses[-1]] for losses in (*curve["losses"].values(), *curve["random_losses"])])
    np.testing.assert_allclose(ends, ends[:1].repeat(4, 0), atol=1e-9)  # nothing removed, and everything
    table = (pruned.path / "pruning_curve.md").read_text("utf-8")
    printed = capsys.readouterr().out
    assert table.strip() in printed and printed.count("Next:") == 1
    assert (pruned.path / "pruning_curve.png").stat().st_size > 5000


def test_the_curve_alone_leaves_the_run_as_it_was(run: Run) -> None:
    before = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    assert main(["prune", str(run.path), "--curve", "--random_orders", "0", "--tokens", "100"]) == 0
    after = {file: file.read_bytes() for file in run.path.rglob("*") if file.is_file()}
    assert {file.name for file in after.keys() - before.keys()} == {
        f"pruning_curve.{end}" for end in ("md", "png", "json")
    }
    assert all(after[file] == content for file, content in before.items())
    assert not Path(f"{run.path}-pruned").exists()


@pytest.mark.parametrize("by", ["importance", "random"])
def test_other_ways_to_choose(by: str, run: Run) -> None:
    assert main(["prune", str(run.path), "--keep_fraction", "0.7", "--by", by, "--tokens", "100"]) == 0
    kept = Run.find(f"{run.path}-pruned").config().model.kept_heads
    assert kept is not None and sum(map(len, kept)) == 6


MISTAKES = [
    (["nowhere", "--heads", "0.0"], "There is no run nowhere"),
    (["RUN"], "Nothing to do"),
    (["RUN", "--heads", "0.0", "--keep_fraction", "0.5"], "Both --heads and --keep_fraction"),
    (["RUN", "--heads", "0,1"], "--heads is '0,1', but it takes heads as layer.head"),
    (["RUN", "--heads", "0.0,0.0"], "each once"),
    (["RUN", "--heads", "0.7"], "no head 0.7"),
    (["RUN", "--heads", "0.0,0.1,0.2,0.3,1.0,1.1,1.2,1.3"], "All heads would go"),
    (["RUN", "--keep_fraction", "1.5"], "--keep_fraction is 1.5"),
    (["RUN", "--keep_fraction", "0.99"], "keeps all 8 heads: give a smaller share"),
    (["RUN", "--keep_fraction", "0.5", "--by", "magic"], "by is 'magic', but it takes greedy"),
    (["RUN", "--curve", "--tokens", "1"], "--tokens is 1"),
]


def test_what_cannot_be_done_is_said(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    for arguments, sentence in MISTAKES:
        assert main(["prune", *(str(run.path) if argument == "RUN" else argument for argument in arguments)]) == 2
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") == 1
    assert not Path(f"{run.path}-pruned").exists()
