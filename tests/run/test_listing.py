"""Runs at a glance: what is shown is what the run's own files say, and no damage stops the list."""

from __future__ import annotations

import math
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minitx.config import Config, ModelConfig
from minitx.run.folder import Run
from minitx.run.listing import Listed, list_runs
from minitx.system.errors import UserError
from minitx.training.session import train
from tests.run.test_folder import made, saved
from tests.small import small_config


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with checkpoints after steps 4, 8 and 12."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("trained")
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        config = small_config(folder)
        assert train(config, None) == 0
    return Path(config.out)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "runs" / "small")
    return tmp_path / "runs" / "small"


def only(folder: Path, check: bool = False) -> Listed:
    (listed,) = list_runs(folder, check)
    return listed


def test_a_finished_run_is_shown_as_its_files_say(run: Path) -> None:
    listed, summary = only(run.parent, check=True), Run(run).read_json("summary.json")
    assert (listed.state, listed.faults, listed.path) == ("finished", [], str(run))
    assert (listed.step, listed.steps) == (12, 12)
    assert listed.parameters == summary["parameters"] and listed.val_loss == summary["val_loss"]
    assert listed.val_bits_per_byte is not None and math.isclose(listed.val_bits_per_byte, summary["val_bits_per_byte"])
    assert listed.bytes == sum(file.stat().st_size for file in run.rglob("*") if file.is_file())


def test_the_newest_checkpoint_of_a_stopped_run_counts(run: Path) -> None:
    (run / "summary.json").unlink()
    shutil.rmtree(run / "checkpoints" / "step-000012")
    listed = only(run)
    assert (listed.state, listed.step, listed.steps, listed.faults) == ("unfinished", 8, 12, [])


def test_a_run_that_trains_now_is_told_from_one_that_was_stopped(tmp_path: Path) -> None:
    run = made(tmp_path / "a")
    with run.locked():
        assert only(tmp_path).state == "training"
    assert only(tmp_path).state == "unfinished"
    (run.path / ".lock").touch()  # as a killed process leaves it
    assert only(tmp_path).state == "unfinished"
    with run.locked():  # looking took nothing
        pass


def test_runs_without_checkpoints_and_without_text(tmp_path: Path) -> None:
    made(tmp_path / "new", model=ModelConfig(n_layer=3))
    saved(made(tmp_path / "imported"), 0)
    by_name = {Path(run.path).name: run for run in list_runs(tmp_path)}
    new, imported = by_name["new"], by_name["imported"]
    assert (new.state, new.step, new.steps, new.parameters) == ("unfinished", 0, Config().train.steps, None)
    assert imported.state == "imported" and imported.val_bits_per_byte is None and not new.faults + imported.faults


def test_runs_are_found_below_folders_and_sorted_by_date(tmp_path: Path) -> None:
    for name, date in (("b", 300), ("compare/a", 100), ("c", 200), (".made-1", 50)):
        os.utime(made(tmp_path / name).path, (date, date))
    (tmp_path / "notes").mkdir()
    assert [Path(run.path).name for run in list_runs(tmp_path)] == ["a", "c", "b"]
    with pytest.raises(UserError, match="There is no folder"):
        list_runs(tmp_path / "nowhere")


def test_a_folder_that_may_not_be_read_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        made(tmp_path / name)
    is_file = Path.is_file

    def refused(path: Path) -> bool:
        if path.parent.name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refused)
    assert [Path(run.path).name for run in list_runs(tmp_path)] == ["a", "c"]


@pytest.mark.parametrize("name", ["config.yaml", "tokenizer.model", "data.json", "summary.json", "metrics.jsonl"])
def test_check_notices_a_flipped_bit_and_names_the_file(name: str, run: Path) -> None:
    content = bytearray((run / name).read_bytes())
    content[len(content) // 2] ^= 1
    (run / name).write_bytes(content)
    listed = only(run, check=True)
    assert listed.state == "damaged" and any(str(run / name) in fault for fault in listed.faults)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "state.json"])
def test_a_damaged_checkpoint(name: str, run: Path) -> None:
    """A shorter file shows without reading it; a flipped bit in a large one, and older checkpoints, only if asked."""
    older, newest = (run / "checkpoints" / f"step-{step:06d}" / name for step in (8, 12))
    content = bytearray(older.read_bytes())
    content[-1] ^= 1
    older.write_bytes(content)
    assert only(run).state == "finished"
    (fault,) = only(run, check=True).faults
    assert str(older) in fault
    os.truncate(newest, 20)
    listed = only(run)
    assert listed.state == "damaged" and any(str(newest) in fault for fault in listed.faults)
    assert listed.step == (8 if name != "state.json" else 0)


@pytest.mark.parametrize("seed", range(12))
def test_no_damage_stops_the_list(seed: int, run: Path) -> None:
    """Random bytes, empty files, folders, links to nowhere and pipes in place of files."""
    draw, other = random.Random(seed), run.parent / "whole"
    shutil.copytree(run, other)
    names = sorted(file for file in run.rglob("*") if file.is_file())
    for file in draw.sample(names, 8):
        file.unlink()
        damage = draw.choice(["nothing", "bytes", "empty", "folder", "link", "pipe", "nested"])
        if damage in ("bytes", "nested", "empty"):
            file.write_bytes({"bytes": draw.randbytes(300), "nested": b"[" * 100_000, "empty": b""}[damage])
        elif damage == "folder":
            file.mkdir()
        elif damage == "link":
            file.symlink_to("nowhere")
        elif damage == "pipe":
            os.mkfifo(file)
    states = {Path(listed.path).name: listed.state for listed in list_runs(run.parent, check=True)}
    assert states.get("small", "damaged") == "damaged" and states["whole"] == "finished"


def test_the_list_needs_no_torch(run: Path) -> None:
    """Importing it takes longer than looking at hundreds of runs."""
    code = "import sys; from minitx.__main__ import main; main(['runs', sys.argv[1]]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, run.parent], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False" and str(run) in done.stdout
