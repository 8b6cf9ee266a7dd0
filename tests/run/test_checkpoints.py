"""Checkpoints load as saved, or the damaged file is named. Also: which are kept, and that none is unpickled."""

from __future__ import annotations

import errno
import math
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from minitx.run.checkpoints import (
    Checkpoint,
    Progress,
    names,
    newest_whole,
    read_checkpoint,
    read_state,
    save_optimizer,
    save_weights,
    write_checkpoint,
)
from minitx.run.folder import Run
from minitx.system.errors import UserError
from minitx.system.files import checksum, json_bytes, read_json
from tests.run.test_folder import saved
from tests.small import small_model


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    run = Run(tmp_path)
    saved(run, 7)
    model = small_model(seed=1)
    checkpoint = run.checkpoint("last")
    checkpoint.load_weights(model)
    assert checkpoint.step == 7 and checkpoint.load_optimizer()["x"].item() == 7
    for ours, theirs in zip(model.parameters(), small_model(seed=7).parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    place = tmp_path / "checkpoints" / "step-000007"
    write_checkpoint(place, small_model(seed=1), {}, {"step": 7, "logs": {}})
    before = read_state(place)
    with pytest.raises(TypeError):
        write_checkpoint(place, small_model(seed=2), {}, {"step": 7, "logs": {}, "odd": object()})
    assert read_state(place) == before and read_checkpoint(place) == before[0]
    write_checkpoint(place, small_model(seed=2), {}, {"step": 7, "logs": {}})
    assert read_state(place)[1] != before[1]
    assert list(place.parent.iterdir()) == [place], "a draft or what was replaced is left"


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "state.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damage_is_named_and_stepped_over(
    name: str, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path)
    saved(run, 1, 2)
    file = tmp_path / "checkpoints" / "step-000002" / name
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 0x80
        file.write_bytes(content)
    elif damage == "truncate":
        file.write_bytes(content[:-20])
    else:
        file.unlink()
    with pytest.raises(UserError, match=f"step-000002/{name} (is damaged|cannot be read|has changed)"):
        run.checkpoint("2")
    checkpoint, faults = newest_whole(run.path)
    assert checkpoint is not None and checkpoint.step == 1 and len(faults) == 1
    assert run.checkpoint("last").step == 1
    warning = capsys.readouterr().err
    assert warning.startswith("warning: ") and name in warning and "Taking step-000001" in warning


def test_a_pickle_in_place_of_the_optimizer_is_not_run(tmp_path: Path) -> None:
    """Even with a checksum that fits."""

    class Mark:
        def __reduce__(self) -> tuple[object, tuple[str, dict[str, object]]]:
            return (exec, (f"open({str(tmp_path / 'mark')!r}, 'w')", {}))

    run = Run(tmp_path)
    saved(run, 1)
    folder = tmp_path / "checkpoints" / "step-000001"
    (folder / "optimizer.pt").write_bytes(pickle.dumps(Mark()))
    state = read_json(folder / "state.json")
    state["checksums"]["optimizer.pt"] = checksum(folder / "optimizer.pt")
    (folder / "state.json").write_bytes(json_bytes(state))
    with pytest.raises(UserError, match="optimizer.pt"):
        run.checkpoint("last").load_optimizer()
    assert not (tmp_path / "mark").exists()
    pickle.loads((folder / "optimizer.pt").read_bytes())
    assert (tmp_path / "mark").exists(), "the pickle would have left no mark"


def test_weights_of_another_shape_are_named(tmp_path: Path) -> None:
    file, checkpoint = tmp_path / "model.safetensors", Checkpoint(tmp_path, Progress())
    save_weights(small_model(vocab_size=30), file)
    with pytest.raises(UserError, match=r"embedding.weight is \(30, 16\), not \(31, 16\)"):
        checkpoint.load_weights(small_model(vocab_size=31))
    file.write_bytes(b"no weights")
    with pytest.raises(UserError, match="cannot be read as weights"):
        checkpoint.load_weights(small_model())


def test_last_best_and_steps(tmp_path: Path) -> None:
    run = Run(tmp_path)
    saved(run, 5, 10, 15, best=10)
    assert [run.checkpoint(name).step for name in ("last", "best", "5", "step-000015")] == [15, 10, 5, 15]
    with pytest.raises(UserError, match="keeps no checkpoint 7: it has 5, 10, 15, best, last"):
        run.checkpoint("7")
    with pytest.raises(UserError, match="keeps no checkpoint newest"):
        run.checkpoint("newest")


def test_old_checkpoints_go_but_never_the_best(tmp_path: Path) -> None:
    run = Run(tmp_path)
    saved(run, 1, 2, 3, 4, 5, best=2, keep=2)
    assert names(run.path) == ["step-000002", "step-000004", "step-000005"]
    assert not list((tmp_path / "checkpoints").glob(".*")), "a draft was left"


def test_steps_beyond_six_digits_are_in_order(tmp_path: Path) -> None:
    """By name, step-1000000 would come before step-999999."""
    run = Run(tmp_path)
    saved(run, 999_998, 999_999, 1_000_000, keep=2)
    assert names(run.path) == ["step-999999", "step-1000000"]
    assert run.checkpoint("last").step == 1_000_000


def test_pruning_never_counts_damaged_checkpoints_of_later_steps(tmp_path: Path) -> None:
    run = Run(tmp_path)
    saved(run, 1, 2, 8, 9, keep=9)
    for name in ("step-000008", "step-000009"):
        (tmp_path / "checkpoints" / name / "model.safetensors").unlink()
    saved(run, 3, keep=2)
    assert names(run.path) == ["step-000002", "step-000003"]


def test_a_full_disk_is_named_and_not_a_fault_of_torch(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    for size in (10, 1_000_000):
        with pytest.raises(OSError) as caught:
            save_optimizer({"x": torch.zeros(size)}, Path("/dev/full"))
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/dev/full")


STATE = {"step": 7, **vars(Progress()), "batches": {"epoch": 0, "position": 5}, "logs": {}} | {"step": 7}


def test_infinity_and_nan_are_null_and_older_states_have_them(tmp_path: Path) -> None:
    """best_val_loss is infinite before the first evaluation, and a skipped step may have no finite loss."""
    place = tmp_path / "step-000007"
    state = {**STATE, "val_loss": math.nan, "unevaluated": [math.nan, math.inf]}
    write_checkpoint(place, small_model(), {}, state)
    written = read_json(place / "state.json")
    assert written["best_val_loss"] is None and written["unevaluated"] == [None, None]
    older = {name: record["sha256"] for name, record in written["checksums"].items()}
    for content in (written, {**written, **state, "checksums": older}):
        (place / "state.json").write_bytes(json_bytes(content))
        progress = read_checkpoint(place).progress
        assert (progress.best_val_loss, progress.val_loss) == (math.inf, None)
        assert progress.unevaluated is not None and all(map(math.isnan, progress.unevaluated))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("step", ["7", 7.0, True, -1, 10**400, None]),
        ("tokens", [None, 1.5, "1", -1, 10**400]),
        ("seconds", [None, "x", 10**400, 1e308, -1, math.nan, []]),
        ("val_loss", ["x", [], 10**400]),
        ("best_step", [None, {}]),
        ("skipped", [None, 0.5]),
        ("batches", [None, [], {}, {"epoch": -1, "position": 0}, {"epoch": math.nan, "position": 0}]),
        ("batches", [{"epoch": 0, "position": "x"}, {"epoch": 0}, {"epoch": 0, "position": 1 << 70}]),
        ("unevaluated", [[1.0], [1.0, 2.0, 3.0], ["x", 1.0], {}, "x"]),
        ("best", ["../x", ["x"], 7, "step-٠٠٠٠٠١"]),
        ("logs", [None, [], {"metrics.jsonl": 3}, {"metrics.jsonl": {"bytes": math.inf, "sha256": "0" * 64}}]),
        ("logs", [{"../x": {"bytes": 1, "sha256": "0" * 64}}, {"metrics.jsonl": {"bytes": 1, "sha256": "x"}}]),
        ("checksums", [None, {}, {"model.safetensors": 3}]),
    ],
)
def test_an_odd_value_in_the_state_is_named(name: str, values: list[Any], tmp_path: Path) -> None:
    place = tmp_path / "step-000007"
    write_checkpoint(place, small_model(), {}, STATE)
    whole = read_json(place / "state.json")
    for value in values:
        (place / "state.json").write_bytes(json_bytes({**whole, name: value}))
        with pytest.raises(UserError, match=rf"step-000007/state.json is damaged: {name}\S* is .* was expected\.$"):
            read_checkpoint(place)


def test_a_larger_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    place = tmp_path / "step-000007"
    write_checkpoint(place, small_model(), {}, STATE)
    os.truncate(place / "model.safetensors", 1 << 42)  # a hole: it takes no room
    with pytest.raises(UserError, match="model.safetensors cannot be read: it has 4,398,046,511,104 bytes"):
        read_checkpoint(place)


def test_a_state_of_another_step_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "step-000007", small_model(), {}, {"step": 8, "logs": {}})
    with pytest.raises(UserError, match="state.json is damaged: step is 8, but 7"):
        read_checkpoint(tmp_path / "step-000007")
