"""`minitx compare` in this process: models are trained, a cut comparison goes on, TensorBoard shows the result."""

from __future__ import annotations

import dataclasses
import json
import signal
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2, list_session_groups
from tensorboard.plugins.hparams.backend_context import Context

import minitx.training.loop
from minitx.__main__ import main
from minitx.config import DataConfig
from minitx.data.prepare import prepare
from minitx.model_size import cache_bytes_per_token
from minitx.run.folder import Run
from tests.small import small_config, small_text

STEPS = 6


@pytest.fixture
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A configuration in a folder of its own, which the test works in. Its text is of many documents, so that a seed
    decides which are held out."""
    config = small_config(tmp_path, steps=STEPS, eval_every=3, checkpoint_every=2, sample_every=3)
    lines = [json.dumps({"text": line}) for line in small_text().splitlines()]
    (tmp_path / "text.jsonl").write_text("\n".join(lines))
    config = dataclasses.replace(config, data=DataConfig(source=str(tmp_path / "text.jsonl"), split_by="document"))
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(config.to_dict()))
    monkeypatch.chdir(tmp_path)
    return "small.yaml"


def losses(folder: str) -> dict[tuple[str, int], float]:
    return {
        (run["variant"], run["seed"]): run["val_loss"] for run in Run(Path(folder)).read_json("comparison.json")["runs"]
    }


def test_head_counts_are_compared(config_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--config", config_file, "--heads", "1,4", "--seeds", "2", "--seed", "5"]) == 0
    folder = Path("runs/compare-heads")
    names = {f"{variant}-seed-{seed}" for variant in ("1-head", "4-heads") for seed in (5, 6)}
    assert {path.name for path in folder.iterdir() if path.is_dir()} == names
    held_out = set()
    for name in names:
        run = Run(folder / name)
        config = run.config()
        assert (config.model.n_head, config.seed) == (int(name[0]), int(name[-1])) and config.train.steps == STEPS
        variant = "1 head" if name[0] == "1" else "4 heads"
        last = run.metrics()[-1]
        assert losses(str(folder))[variant, config.seed] == last["val_loss"] and last["step"] == STEPS
        prepared = prepare(config.data, config.tokenizer, config.seed, progress=False, tokenizer_model=run.tokenizer())
        held_out.add(prepared.val.tobytes())
    assert len(held_out) == 1  # the same text for every seed
    content = Run(folder).read_json("comparison.json")
    model, _ = Run(folder / "1-head-seed-5").load_model("last", torch.device("cpu"))
    assert content["runs"][0]["cache_bytes_per_token"] == cache_bytes_per_token(model.config)
    assert all(len(speed["training"]) == len(speed["decoding"]) == 5 for speed in content["speeds"].values())
    written = (folder / "comparison.md").read_text("utf-8")
    assert written in capsys.readouterr().out and (folder / "comparison.png").stat().st_size > 5000
    assert "--- sample" not in (folder / "training.log").read_text("utf-8")
    columns, rows = hyperparameter_tab(folder)
    compared = {
        f"Summary/{name}" for name in ("train tokens per second", "decode tokens per second", "cache bytes per token")
    }
    assert columns[0][:2] == ["Attention heads", "Seed"]  # what differs comes first
    assert columns[1][:2] == ["Loss/best validation", "Loss/train"] and compared <= set(columns[1])
    results_of = {(int(settings["Attention heads"]), int(settings["Seed"])): results for settings, results in rows}
    assert set(results_of) == {(heads, seed) for heads in (1, 4) for seed in (5, 6)}
    for (variant, seed), loss in losses(str(folder)).items():
        results = results_of[int(variant[0]), seed]
        assert results["Loss/validation"] == pytest.approx(loss, rel=1e-6)
        assert compared <= results.keys() and results["Summary/cache bytes per token"] == 2 * 2 * 16 * 4
        assert results["Summary/decode tokens per second"] == pytest.approx(
            statistics.median(content["speeds"][variant]["decoding"]), rel=1e-6
        )


def hyperparameter_tab(folder: Path) -> tuple[list[list[str]], list[tuple[dict[str, Any], dict[str, float]]]]:
    """What TensorBoard's own plugin makes of a folder: columns of settings and results, and the values of each run."""
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    context = Context(TBContext(data_provider=MultiplexerDataProvider(multiplexer, str(folder))))
    request = RequestContext()
    experiment = context.experiment_from_metadata(
        request, "", True, context.hparams_metadata(request, ""), context.hparams_from_data_provider(request, "", None)
    )
    columns = [
        [info.name for info in experiment.hparam_infos],
        [info.name.tag for info in experiment.metric_infos],
    ]
    groups = list_session_groups.Handler(
        request_context=request,
        backend_context=context,
        experiment_id="",
        request=api_pb2.ListSessionGroupsRequest(
            start_index=0,
            slice_size=99,
            include_metrics=True,
            allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_RUNNING],
            col_params=[api_pb2.ColParams(hparam=name) for name in columns[0]]
            + [api_pb2.ColParams(metric=api_pb2.MetricName(tag=tag)) for tag in columns[1]],
        ),
    ).run()
    rows = [
        (
            {name: value.number_value or value.string_value for name, value in group.hparams.items()},
            {value.name.tag: value.value for value in group.metric_values},
        )
        for group in groups.session_groups
    ]
    return columns, rows


def test_tricks_are_compared_by_what_becomes_of_the_heads(config_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config", config_file, "--tricks", "smear,softcap", "--seeds", "1"]
    assert main(["compare", *arguments]) == 0
    folder = Path("runs/compare-tricks")
    rows = Run(folder).read_json("comparison.json")["rows"]
    assert [row["variant"] for row in rows] == ["plain", "smear", "softcap"]
    assert rows[1]["parameters"] == rows[0]["parameters"] + 1 + 12 and rows[2]["parameters"] == rows[0]["parameters"]
    assert Run(folder / "smear-seed-1337").config().model.tricks == ["smear"]
    written = (folder / "tricks.md").read_text("utf-8")
    assert written in capsys.readouterr().out and (folder / "tricks.png").stat().st_size > 5000
    scores = Run(folder / "plain-seed-1337").heads()[-1]["scores"]["previous_token"]
    chance = Run(folder / "plain-seed-1337").heads()[-1]["chance"]["previous_token"]
    strongest = max((score - chance) / (1 - chance) for layer in scores for score in layer)
    assert f"| previous token             | {strongest:5.2f} |" in written


@pytest.mark.slow
def test_kinds_are_compared(config_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config", config_file, "--kinds", "all", "--seeds", "1", "--model.n_head", "4"]
    assert main(["compare", *arguments]) == 0
    rows = Run(Path("runs/compare-kinds")).read_json("comparison.json")["rows"]
    # 2 layers in float32: keys and values of 4, 2 and 1 heads of width 4; a latent of 8 and a rotary key of 2
    assert {row["variant"]: row["cache_bytes_per_token"] for row in rows} == {
        "multi_head": 2 * 2 * 16 * 4,
        "grouped_query": 2 * 2 * 8 * 4,
        "multi_query": 2 * 2 * 4 * 4,
        "latent": 2 * (8 + 2) * 4,
    }


@pytest.mark.slow
def test_a_comparison_cut_off_goes_on_where_it_was(
    config_file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped by SIGTERM in the second run, a first that was killed before its summary, and a third before its first
    checkpoint: every run ends as if nothing had happened, and none is trained twice."""
    command = ["compare", "--config", config_file, "--heads", "1,2,4", "--seeds", "1"]
    assert main([*command, "--out", "runs/whole"]) == 0
    whole_step, steps = minitx.training.loop.train_step, [0]

    def counting(*arguments: Any) -> Any:
        steps[0] += 1
        if steps[0] == STEPS + 3:
            signal.raise_signal(signal.SIGTERM)
        return whole_step(*arguments)

    monkeypatch.setattr(minitx.training.loop, "train_step", counting)
    assert main([*command, "--out", "runs/cut"]) == 128 + signal.SIGTERM
    assert "The same command goes on" in capsys.readouterr().err and steps[0] == STEPS + 3
    Path("runs/cut/1-head-seed-1337/summary.json").unlink()
    Path("runs/cut/4-heads-seed-1337/checkpoints").mkdir(parents=True)
    assert main([*command, "--out", "runs/cut"]) == 0
    assert steps[0] == 3 * STEPS
    assert losses("runs/cut") == losses("runs/whole") and len(losses("runs/cut")) == 3

    capsys.readouterr()
    table, speeds = (
        Path("runs/cut/comparison.md").read_text("utf-8"),
        Run(Path("runs/cut")).read_json("comparison.json"),
    )
    Path("runs/cut/comparison.md").write_text("made up")
    Path("runs/cut/comparison.png").unlink()
    assert main([*command, "--out", "runs/cut"]) == 0  # done: nothing is measured again, but drawn from the runs
    assert steps[0] == 3 * STEPS and Run(Path("runs/cut")).read_json("comparison.json") == speeds
    assert Path("runs/cut/comparison.md").read_text("utf-8") == table and Path("runs/cut/comparison.png").exists()
    assert Path("runs/cut/comparison.md").read_text("utf-8") in capsys.readouterr().out
    assert main([*command, "--out", "runs/cut", "--train.steps", "2"]) == 0  # another one
    assert len(losses("runs/cut-2")) == 3 and losses("runs/cut") == losses("runs/whole")


def test_a_comparison_notices_what_is_not_its_own(config_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compare", "--config", config_file, "--heads", "1,2", "--seeds", "1", "--out", "runs/a"]
    assert main(command) == 0
    one, two = (Path("runs/a") / f"{name}-seed-1337" / "summary.json" for name in ("1-head", "2-heads"))
    kept = one.read_bytes()
    summary, comparison = Run(one.parent).read_json("summary.json"), Run(Path("runs/a")).read_json("comparison.json")
    one.write_bytes(two.read_bytes())
    assert main(command) == 2 and "summary.json is damaged: seconds is" in capsys.readouterr().err
    Run(one.parent).write_json("summary.json", {**summary, "val_loss": None})
    assert main(command) == 2 and "summary.json is damaged: val_loss is None, but a number" in capsys.readouterr().err
    one.write_bytes(kept)
    odd = {**comparison["speeds"], "1 head": {"training": [0], "decoding": [1]}}
    Run(Path("runs/a")).write_json("comparison.json", {**comparison, "speeds": odd})
    assert main(command) == 2 and "comparison.json is damaged: speeds.1 head.training.0 is 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--heads", "1,two"], "--heads is '1,two', but it takes head counts"),
        (["--heads", "2,2"], "each once"),
        (["--heads", "3"], "model.n_head is 3"),
        (["--heads", "1,2", "--kinds", "all"], "Both --heads and --kinds"),
        (["--tricks", "all", "--kinds", "all"], "Both --kinds and --tricks"),
        (["--tricks", "smeer"], "--tricks is 'smeer', but it takes some of value_embeddings, smear,"),
        (["--tricks", "all", "--log.heads_every", "0"], "log.heads_every is 0, but tricks are compared by"),
        (["--kinds", "sparse"], "--kinds is 'sparse', but it takes some of multi_head,"),
        (["--kinds", "all"], "model.n_head is 2, which nothing between it and 1 divides"),
        (["--heads", "1,2", "--model.attention", "latent"], "not of equal size"),
        (["--seeds", "0"], "--seeds is 0"),
        (["--seeds", "1337"], "asks for 1,337 seeds: for the seeds from 1337 on, give --seed 1337"),
        (["--model.n_heads", "1"], "did you mean --model.n_head?"),
        (["--seeds", "x"], "seeds is 'x', but it takes a whole number"),
        (["--model.kept_heads", "[[0], [1]]"], "only whole models are compared"),
    ],
)
def test_what_cannot_be_compared_is_said(
    arguments: list[str], sentence: str, config_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "--config", config_file, *arguments]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not Path("runs").exists()
