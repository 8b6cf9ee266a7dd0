"""A run that learns tales logs what it knows of each kind of relationship, and where its heads look for it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from minitx.__main__ import main
from minitx.config import Config, DataConfig, ModelConfig, TokenizerConfig
from minitx.data.tales.tale import KINDS
from minitx.heads import snapshots
from minitx.heads.places import held_out_tales, run_probes
from minitx.run.folder import Run
from minitx.tensorboard.head_charts import KIND
from minitx.tensorboard.writer import METRIC_TAGS
from minitx.training import kind_log
from minitx.training.session import train
from tests.small import small_config
from tests.tensorboard.test_writer import read


def tale_config(folder: Path) -> Config:
    """A run of seconds on a few tales."""
    config = small_config(folder, sample_every=0)
    return dataclasses.replace(
        config,
        data=DataConfig(source="tales", max_documents=200),
        tokenizer=TokenizerConfig(type="word", vocab_size=832),
        model=ModelConfig(n_layer=1, n_head=2, d_model=16, context_length=128),
        log=dataclasses.replace(config.log, heads_every=6, snapshots_every=6, probes=[]),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tales")
    with pytest.MonkeyPatch.context() as patch:
        for name, count in (("ASKED", 20), ("ASKED_LAST", 60), ("LOOKED", 10)):
            patch.setattr(kind_log, name, count)
        assert train(tale_config(folder)) == 0
    return folder / "runs" / "small"


def test_metrics_and_summary_say_how_far_above_the_entropy(run: Path) -> None:
    evaluated = [line for line in Run(run).metrics() if line["val_loss"] is not None]
    assert [line["step"] for line in evaluated] == [6, 12]
    tales = json.loads((run / "summary.json").read_text("utf-8"))["tales"]
    assert tales["above"] == pytest.approx(tales["loss"] - tales["entropy"])
    assert evaluated[-1]["above_entropy"] == tales["above"] > evaluated[-1]["val_loss"] / 2  # it has learned little
    assert {*tales["accuracy"]} == {*evaluated[0]["accuracy"]} == {*KINDS}
    told = held_out_tales(Run(run).config(), 60)
    words = sum(len(Run(run).tokenizer().encode(tale.text)) + 1 for tale in told)
    assert tales["entropy"] == pytest.approx(sum(tale.nats for tale in told) / words)


def test_tensorboard_has_a_chart_for_each_kind(run: Path) -> None:
    tags = {*read(run).Tags()["scalars"]}
    assert METRIC_TAGS["above_entropy"] in tags
    assert {f"Tales/{kind}" for kind in ("object", "place", "name")} <= tags
    assert {"heads: tales object/layer 0, highest", "heads: tales object/chance"} <= tags


def test_heads_are_scored_on_tales_at_every_snapshot(run: Path) -> None:
    names = {KIND.format(kind) for kind in KINDS}
    assert all(names <= {*line["scores"]} for line in Run(run).heads())
    with snapshots.open_snapshot(run, 12) as (_, header):
        assert names <= {*header["scores"]}
        assert len(header["probes"]) == 1  # a held-out tale, though the run has no probes of its own


def test_the_tale_shown_has_its_labels_as_links(run: Path) -> None:
    config = Run(run).config()
    [probe], [tale] = run_probes(config), held_out_tales(config, 1)
    assert probe.text == tale.text
    assert [(link.source, link.target) for link in probe.links] == [
        (label.source, label.target) for label in tale.labels
    ]
    assert len({link.name for link in probe.links}) == len(probe.links)


def test_walkthrough_shows_words_of_the_tales_in_two_contexts(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["walkthrough", str(run)]) == 0
    out = capsys.readouterr().out
    assert "'bank' in" in out
    assert "'It' in" in out


def test_a_context_too_short_for_a_tale_trains_without_them(tmp_path: Path) -> None:
    """Once it crashed at the first evaluation."""
    config = tale_config(tmp_path)
    assert train(dataclasses.replace(config, model=dataclasses.replace(config.model, context_length=8))) == 0
    assert "tales" not in json.loads((tmp_path / "runs" / "small" / "summary.json").read_text("utf-8"))
