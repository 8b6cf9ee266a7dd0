"""What training prints: a bar on a terminal, plain lines elsewhere; cards and tables."""

from __future__ import annotations

import dataclasses
import io
import sys
import tracemalloc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from minitx.config import ModelConfig
from minitx.config.probes import DEFAULT_PROBES, ProbeSetting
from minitx.data.prepare import prepare
from minitx.heads import snapshots
from minitx.heads.scores import SCORES
from minitx.model import Transformer
from minitx.run.folder import Run
from minitx.run.logs import HEADS_FILE
from minitx.system.runtime import choose_runtime
from minitx.training.loop import train_step, training_loss
from minitx.training.model_card import attention_kind, attention_rows, flatten, hyperparameters, model_card
from minitx.training.report import Report
from minitx.training.session import train
from minitx.training.state import Due, Training, due_after
from tests.small import small_config

LINE = {
    "step": 6,
    "tokens": 768,
    "seconds": 2.0,
    "train_loss": 2.5,
    "val_loss": 2.75,
    "val_bits_per_byte": 3.5,
    "learning_rate": 1e-3,
    "grad_norm": 0.5,
    "tokens_per_second": 12345.6,
}


class Terminal(io.StringIO):
    """Text that says it is on a screen."""

    def isatty(self) -> bool:
        return True


def opened(folder: Path) -> Report:
    config = small_config(folder)
    prepared = prepare(config.data, config.tokenizer, config.seed, progress=False)
    run = Run.create(config.out, config, prepared.tokenizer, prepared.describe())
    torch.manual_seed(0)
    model = Transformer(config.model, prepared.tokenizer.vocab_size)
    return Report(Training(config, run, prepared, choose_runtime("cpu", "auto", "auto", 1), model))


def after(report: Report, step: int) -> Due:
    """What is due after a step, which the run has then done."""
    report.training.progress.step = step
    return due_after(step, report.training.config)


def test_without_a_terminal_a_plain_line_for_each_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened(tmp_path) as report:
        report.bar.update()
        report.metrics(LINE)
        report.metrics({**LINE, "step": 7, "val_loss": None, "val_bits_per_byte": None})
    out, err = capsys.readouterr()
    assert out == ("step 6/12: training loss 2.500, validation loss 2.750 (3.500 bits per byte), 12,346 tokens/s\n")
    assert err == ""


def test_a_terminal_sees_a_bar_with_time_left_loss_and_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with opened(tmp_path) as report:
        report.training.progress.val_loss = LINE["val_loss"]
        report.metrics(LINE)
        for _ in range(12):
            report.bar.update()
    last = terminal.getvalue().split("\r")[-1]
    assert "12/12 steps" in last and "left" in last
    assert "loss 2.500, val 2.750, 12,346 tokens/s" in last


def test_heads_and_samples_come_when_they_are_due(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with opened(tmp_path) as report:
        due = [after(report, step) for step in range(1, 13)]
        assert [i for i, each in enumerate(due, 1) if each.heads] == [6, 12]
        assert [i for i, each in enumerate(due, 1) if each.sample] == [6, 12]
        report.step(LINE, after(report, 5))
        assert "sample" not in capsys.readouterr().out
        report.step(LINE, after(report, 6))
        assert "\n--- sample at step 6 ---\n" in capsys.readouterr().out


def test_the_last_step_asks_for_everything_that_is_on(tmp_path: Path) -> None:
    config = small_config(tmp_path, steps=11, sample_every=0)
    assert due_after(11, config) == Due(True, True, True, True, bool(config.log.snapshots_every), sample=False)
    assert due_after(1, config).metrics and not due_after(1, config).evaluation


def test_speed_is_since_the_line_before(tmp_path: Path) -> None:
    with opened(tmp_path) as report:
        training, speeds = report.training, []
        for tokens, seconds in ((100, 1.0), (400, 2.0)):
            training.progress.tokens, training.progress.seconds = tokens, seconds
            line = training.metrics(torch.tensor(1.0), torch.tensor(1.0))
            speeds.append(line["tokens_per_second"])
            report.metrics(line)
    assert speeds == [100, 300]


def test_a_model_that_is_ruined_writes_no_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with opened(tmp_path) as report:
        report.training.model.output.weight.data.fill_(float("nan"))
        report.step(LINE, after(report, 6))
    out, err = capsys.readouterr()
    assert "sample" not in out and "There is no sample at step 6" in err


def test_a_probe_longer_than_the_context_is_cut(tmp_path: Path) -> None:

    with opened(tmp_path) as report:
        training = report.training
        log = dataclasses.replace(training.config.log, probes=["the cat " * 50])
        training.config = dataclasses.replace(training.config, log=log)
        report.heads(after(report, 12))
    with snapshots.path(training.run.path, 12).open("rb") as file:
        assert len(snapshots.read_header(file)["probes"][0]["tokens"]) == 32


def test_scores_and_links_of_every_head_are_kept(tmp_path: Path) -> None:
    """In heads.jsonl and under the same names on TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with opened(tmp_path) as report:
        links = [{"from": "sat", "to": "cat"}, {"from": "sat", "to": "the", "name": "subject's article"}]
        training = report.training
        probes: list[str | ProbeSetting] = ["rain", {"text": "the cat sat.", "links": links}]
        log = dataclasses.replace(training.config.log, probes=probes, head_scalars=True)
        training.config = dataclasses.replace(training.config, log=log)
        for step in (6, 7, 12):
            report.heads(after(report, step))
    lines = training.run.metrics(HEADS_FILE)
    assert [line["step"] for line in lines] == [6, 12]
    assert {*SCORES, "importance", "induction_on_repeats"} == lines[0]["scores"].keys() == lines[0]["chance"].keys()
    assert [(link["probe"], link["name"]) for link in lines[0]["links"]] == [(1, "sat → cat"), (1, "subject's article")]
    events = EventAccumulator(str(training.run.path), size_guidance={"scalars": 0})
    events.Reload()
    for layer in range(2):
        for head in range(2):
            written = lines[0]["links"][0]["attention"][layer][head]
            assert 0 < written < 1 and 0 < lines[0]["links"][0]["chance"][layer][head] < 1
            shown = events.Scalars(f"layer {layer} head {head}/“the cat sat.” sat → cat")
            assert [event.step for event in shown] == [6, 12]
            assert shown[0].value == pytest.approx(written, rel=1e-6)
            assert events.Scalars(f"layer {layer} head {head}/induction on repeats")
            matters = events.Scalars(f"layer {layer} head {head}/importance")[0].value
            assert matters == pytest.approx(lines[0]["scores"]["importance"][layer][head]) and matters > 0
    assert lines[0]["chance"]["importance"] is None  # even attention has no importance
    # Letters: "sat" are the tokens 8 to 10, "cat" 4 to 6; evenly spread, each query has 1 of i + 1 for each key.
    evenly = events.Scalars("links in “the cat sat.”/sat → cat, chance")[0].value
    assert evenly == pytest.approx((3 / 9 + 3 / 10 + 3 / 11) / 3)
    highest = events.Scalars("links in “the cat sat.”/sat → cat, highest head")[0].value
    assert highest == pytest.approx(np.max(lines[0]["links"][0]["attention"]))
    for name, values in lines[0]["scores"].items():
        group = f"heads: {name.replace('_', ' ')}"
        for layer in range(2):
            assert events.Scalars(f"{group}/layer {layer}, highest")[0].value == pytest.approx(max(values[layer]))
            assert events.Scalars(f"{group}/layer {layer}, mean")[0].value == pytest.approx(sum(values[layer]) / 2)


def test_a_run_of_sixteen_heads_has_few_charts(tmp_path: Path) -> None:
    """And as many for 64 heads: the others are in the Attention tab."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    charts = {}
    for heads in (4, 16):
        config = small_config(tmp_path, steps=1, sample_every=0)
        model = dataclasses.replace(config.model, n_layer=4, n_head=heads, d_model=64)
        log = dataclasses.replace(config.log, probes=list(DEFAULT_PROBES[:1]))
        assert train(dataclasses.replace(config, out=f"{config.out}-{heads}", model=model, log=log)) == 0
        events = EventAccumulator(f"{config.out}-{heads}", size_guidance={"scalars": 0})
        events.Reload()
        charts[heads] = {*events.Tags()["scalars"]}
    assert charts[4] == charts[16] and len(charts[4]) <= 110


def test_model_card_counts(tmp_path: Path) -> None:
    with opened(tmp_path) as report:
        training = report.training
        card = model_card(training.model, training.prepared, training.runtime)
    parameters = sum(p.numel() for p in training.model.parameters())
    assert f"| parameters | {parameters:,} |" in card
    assert "| layers × heads | 2 × 2 |" in card
    assert f"| cache bytes per token (float32) | {2 * 2 * 16 * 4} |" in card


def test_model_card_of_other_attention() -> None:
    assert attention_rows(ModelConfig(n_head=4, n_kv_head=2)) == [("key-value heads", 2)]
    latent = ModelConfig(n_layer=2, attention="latent", d_latent=8, d_rotary=2, kept_heads=[[0, 2], []])
    assert attention_rows(latent) == [
        ("latent attention", "d_latent 8, d_rotary 2"),
        ("heads kept by pruning", "0 2; –"),
    ]


def test_the_hparams_tab_has_what_may_make_a_run_better(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    values = hyperparameters(config)
    main = {"Attention heads", "Attention kind", "Data", "Layers", "Model width", "Seed", "Steps"}
    assert main == {name for name in values if name[0].isupper()}  # which TensorBoard sorts first
    assert (values["Attention heads"], values["Layers"], values["Model width"]) == (2, 2, 16)
    assert (values["Seed"], values["Steps"], values["Attention kind"]) == (config.seed, 12, "multi-head")
    assert "train.learning_rate" in values and "model.dropout" in values
    assert not {"out", "threads", "model.n_head", "train.eval_every"} & {*values}
    assert not [name for name in values if name.startswith("log.")]


@pytest.mark.parametrize(
    ("model", "kind"),
    [
        (ModelConfig(n_head=1), "multi-head"),
        (ModelConfig(n_head=4, n_kv_head=4), "multi-head"),
        (ModelConfig(n_head=4, n_kv_head=1), "multi-query"),
        (ModelConfig(n_head=4, n_kv_head=2), "grouped-query, 2 key-value heads"),
        (ModelConfig(attention="latent"), "latent"),
    ],
)
def test_kinds_of_attention_have_the_names_of_the_literature(model: ModelConfig, kind: str) -> None:
    assert attention_kind(model) == kind


def test_flatten() -> None:
    assert flatten({"a": 1, "b": {"c": None, "d": [1], "e": True}}) == {
        "a": 1,
        "b.c": "None",
        "b.d": "[1]",
        "b.e": True,
    }


class TensorBytes(TorchDispatchMode):
    """Bytes of tensors made while it is entered that are there at one time: `peak` is the most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.there: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.there:
                    self.there.add(storage._cdata)
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self.gone, storage._cdata, storage.nbytes())
        return made

    def gone(self, identity: int, size: int) -> None:
        self.there.discard(identity)
        self.now -= size


def taken(work: Callable[[], object]) -> int:
    """Bytes of tensors, arrays and Python objects that `work` has at one time, at most."""
    tracemalloc.start()
    with TensorBytes() as tensors:
        work()
    _, others = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return tensors.peak + others


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_looking_at_heads_takes_far_less_memory_than_the_step_before_it(tmp_path: Path, dtype: str) -> None:
    """What the step held is free by then, so that the peak of a run is not raised, at the default shape."""
    config = small_config(tmp_path, batch_size=16)
    config = dataclasses.replace(config, model=ModelConfig())
    prepared = prepare(config.data, config.tokenizer, config.seed, progress=False)
    run = Run.create(config.out, config, prepared.tokenizer, prepared.describe())
    model, runtime = Transformer(config.model, prepared.tokenizer.vocab_size), choose_runtime("cpu", dtype, False, 1)
    training = Training(config, run, prepared, runtime, model)
    optimizers, batches = training.optimizers, training.batches
    with Report(training) as report:
        report.heads(after(report, 6))  # imports what it needs
        loss_of, parameters = training_loss(model), list(model.parameters())
        step = taken(lambda: train_step(loss_of, parameters, optimizers, batches, runtime, config.train))
        heads = taken(lambda: report.heads(after(report, 12)))
    patterns = config.model.n_layer * config.model.n_head * config.train.batch_size * config.model.context_length**2 * 4
    assert patterns / 4 < heads < 4 * patterns
    assert heads < step / 2
