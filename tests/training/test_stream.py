"""Runs that train straight from a stream, by real processes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from minitx.config import Config, DataConfig
from minitx.run.folder import Run
from minitx.system.errors import UserError
from minitx.training.session import train
from tests.data.test_sources import write
from tests.small import small_text
from tests.training.test_parallel import all_well, config_of, losses, sentences, train_by, weights_of


def streamed(folder: Path, steps: int = 12) -> Config:
    """A run on shards of unequal sizes, some of which end several times before it does."""
    lines = small_text(90).splitlines()
    for number, (first, end) in enumerate([(0, 50), (50, 53), (53, 80), (80, 81), (81, 90)]):
        write(folder / "data" / f"{number}.parquet", lines[first:end])
    settings = {"steps": steps, "eval_every": 4, "checkpoint_every": 4, "decay_fraction": 0.0}
    config = config_of(folder, {"dropout": 0.2}, settings, deterministic=True)
    data = DataConfig(str(folder / "data"), streaming="train", buffer=8, max_documents=20, val_fraction=0.2)
    log = dataclasses.replace(config.log, heads_every=0)
    return dataclasses.replace(config, data=data, log=log)


@pytest.mark.slow
def test_every_number_of_processes_trains_the_same_run_and_resumes_it(tmp_path: Path) -> None:
    """1 → 4 → 2 processes, to the last bit the run of one; and none waits for another whose shards ended."""
    config = streamed(tmp_path)
    assert train(config) == 0
    places = [place["epoch"] for place in (Run(Path(config.out)).checkpoint("last").batches or {})["readers"]]
    assert min(places) < max(places) and max(places) >= 2
    together = dataclasses.replace(config, out=f"{config.out}-by-2")
    all_well(train_by(2, together, tmp_path))
    assert losses(together) == losses(config) and weights_of(together) == weights_of(config)
    assert '"epochs": ' in (Path(config.out) / "summary.json").read_text("utf-8")
    out = f"{config.out}-resumed"

    def up_to(steps: int) -> Config:
        return dataclasses.replace(config, out=out, train=dataclasses.replace(config.train, steps=steps))

    train(up_to(4))
    all_well(train_by(4, up_to(8), tmp_path, resume=out))
    all_well(train_by(2, up_to(12), tmp_path, resume=out))
    ours, theirs = ([line["train_loss"] for line in Run(Path(path)).metrics()] for path in (out, config.out))
    assert ours == theirs and weights_of(up_to(12)) == weights_of(config)
    write(tmp_path / "data" / "9.parquet", ["one more"])
    with pytest.raises(UserError, match=r"state\.json does not fit.*: the data set has changed.*put back its files"):
        train(up_to(16), resume=out)


def test_processes_that_do_not_divide_the_readers_are_refused(tmp_path: Path) -> None:
    config = streamed(tmp_path)
    uneven = dataclasses.replace(config, train=dataclasses.replace(config.train, batch_size=4, grad_accum=1))
    for bad, rows in ((config, 24), (uneven, 4)):
        (sentence,) = sentences(train_by(3, bad, tmp_path))
        assert not Path(config.out).exists(), "refused before there is a run"
        assert f"must divide the {rows} rows of an update, and the processes (3)" in sentence
        assert "take 1, 2 or 4 processes" in sentence


def test_a_bad_step_is_recorded_and_training_goes_on_in_the_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recording it reads its rows again, and must leave the readers where they were."""
    config = streamed(tmp_path, steps=4)
    train(config)
    monkeypatch.setattr("minitx.training.loop.is_finite", lambda loss, norm: False)
    monkeypatch.setattr("minitx.training.divergence.way_back", lambda run: "")
    bad = dataclasses.replace(
        config, out=f"{config.out}-bad", train=dataclasses.replace(config.train, skip_bad_steps=9)
    )
    train(bad)
    kept, expected = (Run(Path(c.out)).checkpoint("last").batches for c in (bad, config))
    assert kept == expected
    assert (Path(bad.out) / "diverged-000002.json").is_file()
