"""Examples of heads that training writes, in a run at one go and in one that was stopped."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from minitx.heads import examples_file, snapshots
from minitx.run.folder import Run
from minitx.training.session import train
from tests.small import small_config
from tests.training.test_loop import interrupted_at


def test_a_resumed_run_writes_the_same_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config(tmp_path, steps=12, eval_every=3, checkpoint_every=12)
    config = dataclasses.replace(config, log=dataclasses.replace(config.log, heads_every=0, snapshots_every=0))
    assert train(config) == 0
    whole = Path(config.out)
    assert examples_file.steps(whole) == [3, 6, 9, 12]
    stopped = Path(interrupted_at(8, config, monkeypatch))
    assert examples_file.steps(stopped) == [3, 6]
    later = examples_file.read(whole, 9)._replace(step=10, run=str(snapshots.run_id(stopped)))
    examples_file.write(stopped, later)  # as a process that was killed before its checkpoint would leave it
    assert train(Run(stopped).config(), resume=str(stopped)) == 0
    assert examples_file.steps(stopped) == [3, 6, 9, 12]
    for step in (3, 6, 9, 12):
        ours, theirs = (examples_file.read(run, step) for run in (stopped, whole))
        assert ours._replace(run="") == theirs._replace(run="")


def test_without_examples_nothing_is_written(tmp_path: Path) -> None:
    config = small_config(tmp_path, steps=3)
    log = dataclasses.replace(config.log, heads_every=0, snapshots_every=0, examples=0)
    assert train(dataclasses.replace(config, log=log)) == 0
    assert not (Path(config.out) / "attention").exists()
