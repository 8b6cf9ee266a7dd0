"""A run is never lost: kills, damage, full disks, signals, two trainings at once, malicious files."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minitx.run.checkpoints import names, newest_whole
from minitx.run.folder import Run
from minitx.system.files import checksum, json_bytes, read_json
from tests.reliability.common import ROOT, curves, differences, environment, in_process, minitx, quickly, written
from tests.reliability.disk import disk, small_disk
from tests.reliability.kills import kills
from tests.small import small_config

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has neither SIGKILL nor limits on the size of files")

STEP, FIRST, TAB = (
    "runs/whole/checkpoints/step-000008/",
    "compare/1-head-seed-1337/",
    "runs/whole/attention/step-000008.heads",
)
FORGED = {
    f"generate | {STEP}state.json": {"step": ["1e308", '"4"'], "checksums": ["{}"], "best": ['"../../../x"', '["x"]']},
    f"prune | {STEP}state.json": {"batches": ["Infinity", '{"epoch": -1, "position": 0}'], "seconds": ["null"]},
    f"train --resume | {STEP}state.json": {
        "batches": ["[]", '{"epoch": "x", "position": 0}', f'{{"epoch": 0, "position": {1 << 70}}}'],
        "logs": ["null", '{"metrics.jsonl": 3}', '{"metrics.jsonl": {"bytes": Infinity, "sha256": ""}}'],
        "unevaluated": ["[1]", "[1, 2, 3]"],
        "seconds": ["10**400", '"x"'],
        "val_loss": ['"x"'],
    },
    "prune | runs/whole/data.json": {"prepared": ["-1"]},
    "heads --text | runs/whole/config.yaml": {"seed": ["5,000 digits"], "model": ["null"]},
    "train --resume | cache/minitx/*/meta.json": {"val_bytes": ["10**400", '"x"'], "fingerprint": ["true"]},
    f"compare again | {FIRST}summary.json": {"val_loss": ["null"], "tokens": ["10**400"], "steps": ["gone"]},
    "import | exported/config.json": {
        "hidden_size": ['"x"', "1e308"],
        "vocab_size": ["null"],
        "num_hidden_layers": ["10**400"],
        "rope_parameters": ['"x"', '{"rope_theta": "x"}'],
    },
}
"""Verb and file → fields → values that ended in a traceback once, though a checksum fitted."""
DAMAGED = {
    "prune | cache/minitx/*/val.npy": ["flip 29308 (checksums fit)", "fifo", "urandom"],
    "heads --history | runs/whole/heads.jsonl": [
        'set [1, "scores"] gone',
        "cut 2914",
        "copy runs/twin/heads.jsonl",
        "sparse",
    ],
    f"tab | {TAB}": [
        "flip 12100",
        "copy runs/twin/attention/step-000008.heads",
        'set [0, "scores", "importance", 0] 0.5',
    ],
    "own text | runs/whole/weights/step-000004.safetensors": [
        "flip 20000",
        "cut 100",
        "remove",
        "fifo",
        "sparse",
        "copy runs/twin/weights/step-000004.safetensors",
        "copy runs/whole/weights/step-000008.safetensors",
    ],
    "tab | runs/whole/attention/examples-000008.json": [
        "flip 1000",
        "remove",
        "fifo",
        "copy runs/twin/attention/examples-000008.json",
        "copy runs/whole/attention/examples-000004.json",
        'set [0, "of_heads", 1, "strongest", 0, 1] -1 (checksums fit)',
    ],
    "import | exported/model.safetensors": ["flip 94689", "copy twins/exported/model.safetensors"],
    "import | exported/config.json": ["set [0] []", "set [0] 20,000 brackets", "sparse"],
    "import | exported/sentencepiece.model": ["fifo", "sparse", "random 3"],
    "compare again | compare/comparison.md": ["copy twins/compare/comparison.md", "random 1", "fifo"],
    "compare again | compare/comparison.json": ["remove", "loop", "copy twins/compare/comparison.json"],
    f"compare again | {FIRST}summary.json": ["copy compare/2-heads-seed-1337/summary.json", "fifo"],
    "train --resume | runs/whole/metrics.jsonl": ["fifo", "zero", "sparse"],
    "train --resume | runs/whole/events.out.tfevents.*": ["fifo", "sparse"],
    "heads --text | runs/whole/tokenizer.model": ["fifo", "zero"],
    f"generate | {STEP}state.json": ["fifo", "sparse"],
    "prune | runs/whole/data.json": ["fifo", "sparse"],
    "prune | runs/whole/config.yaml": ["sparse", 'set [0, "model", "n_layer"] 190:20:30 (checksums fit)'],
}
"""Verb and file → damages that were told by a traceback once, or took all memory, or hung, or were not noticed."""
FOUND = [f"{case} | {harm}" for case, harms in DAMAGED.items() for harm in harms]
FOUND += [
    f"{case} | set {json.dumps([0, field])} {value} (checksums fit)"
    for case, fields in FORGED.items()
    for field, values in fields.items()
    for value in values
]


@pytest.mark.slow
def test_killed_runs_go_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    done = kills(tmp_path, 2, seed=2, names=["adamw"])
    assert done["kills"] == 2
    assert done["divergent"] == done["unresumable"] == done["drafts left"] == 0


def harness(folder: Path, *arguments: str) -> dict[str, Any]:
    """The counts of a harness, which forks, and so has a process of its own."""
    command = [sys.executable, "-m", "tests.reliability", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment(folder), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    print(done.stdout)  # names every fault
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))[arguments[0]]["all"]


@pytest.mark.slow
def test_verbs_killed_at_a_file_operation_leave_nothing_half_made(tmp_path: Path) -> None:
    done = harness(tmp_path, "crashes", "--count", "13", "--seed", "1")
    assert done["kills"] + done["power cuts"] == 13 and min(done["kills"], done["power cuts"]) > 2
    assert not done.keys() - {"kills", "power cuts", "operations"}


@pytest.mark.slow
def test_no_damage_is_loaded_unnoticed(tmp_path: Path) -> None:
    cases = [argument for case in FOUND for argument in ("--case", case)]
    done = harness(tmp_path, "damage", "--count", "15", "--seed", "1", *cases)
    assert done["damages"] == 15 + len(FOUND)
    assert done["refused in a sentence"] and done["went on with a warning"] and done["did without the file"]
    assert not done.keys() & {"unnoticed", "traceback", "hang", "memory", "left behind"}


@pytest.mark.slow
@pytest.mark.parametrize("mounted,sizes", [(False, [200_000]), (True, [560_000])], ids=["limited", "mounted"])
def test_a_full_disk_loses_nothing(tmp_path: Path, mounted: bool, sizes: list[int]) -> None:
    try:
        done = disk(tmp_path, sizes, mounted=mounted)
    except (PermissionError, FileNotFoundError) as error:
        pytest.skip(f"this machine mounts no small file system: {error}")
    assert done["full"] == 1, "there was room after all"
    assert done["not one sentence"] == done["not whole"] == done["unresumable"] == done["divergent"] == 0


def test_a_disk_that_turns_read_only_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    try:
        with small_disk(tmp_path / "disk", 100 << 20):
            run = tmp_path / "disk" / "small"
            written(tmp_path, small_config(tmp_path), "small")
            assert quickly(tmp_path, "train.py", "--config", "small.yaml", "--out", str(run)).returncode == 0
            more = ("train.py", "--resume", str(run), "--train.steps", "14")
            subprocess.run(["mount", "-o", "remount,ro", str(run.parent)], check=True)
            done = quickly(tmp_path, *more)
            assert done.returncode == 2 and "Read-only file system" in done.stderr and done.stderr.count("\n") == 1
            assert quickly(tmp_path, "generate.py", str(run), "--max_new_tokens", "3").returncode == 0
            subprocess.run(["mount", "-o", "remount,rw", str(run.parent)], check=True)
            assert quickly(tmp_path, *more).returncode == 0
    except (PermissionError, FileNotFoundError) as error:
        pytest.skip(f"this machine mounts no small file system: {error}")


def test_a_folder_without_permission_is_a_sentence(tmp_path: Path) -> None:
    """As a user who may not write there; root may write everywhere, so it becomes nobody first."""
    config = small_config(tmp_path)
    written(tmp_path, config, "small")
    (tmp_path / "shut").mkdir(mode=0o555)
    code = (
        "import os, sys\n"
        "from tests.reliability.common import in_process\n"
        "from minitx.__main__ import main\n"
        "warm = in_process(['train', '--config', 'small.yaml', '--out', 'runs/warm'])\n"  # all that is to be imported
        "assert warm.status == 0, warm\n"
        "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "if os.access(sys.argv[1], os.W_OK): sys.exit(77)\n"
        "for cache in sys.argv[1:]:\n"
        "    os.environ['XDG_CACHE_HOME'] = cache\n"
        "    print(main(['train', '--config', 'small.yaml', '--out', sys.argv[1] + '/runs/a']))"
    )
    for parent in (tmp_path, *tmp_path.parents):
        if os.getuid() == 0 and not parent.stat().st_mode & 0o005:
            parent.chmod(parent.stat().st_mode | 0o055)  # folders of pytest's own
    (tmp_path / "free").mkdir()
    (tmp_path / "free").chmod(0o777)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "shut"), str(tmp_path / "free")],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip("this user may write everywhere")
    assert [line for line in done.stdout.splitlines() if line.isdecimal()] == ["2", "2"], done.stderr
    cache, run = done.stderr.splitlines()
    for sentence, place in ((cache, "The cache folder"), (run, "The run folder")):
        assert sentence.startswith(f"error: {place}") and "Permission denied" in sentence


def test_tensorboard_shows_each_step_of_a_resumed_run_once(tmp_path: Path) -> None:
    """By the server that TensorBoard reads event files with where it is installed, in a program of its own."""
    server = pytest.importorskip("tensorboard.data.server_ingester", reason="this TensorBoard has no data server")
    from tensorboard.context import RequestContext
    from tensorboard.util.grpc_util import ChannelCredsType

    try:
        binary = server.get_server_binary()
    except server.NoDataServerError as error:
        pytest.skip(f"the data server is not installed: {error}")
    written(tmp_path, small_config(tmp_path, steps=10, checkpoint_every=4, eval_every=10), "small")
    end = "from tests.reliability.kills import end_at; end_at('step', 8)"
    assert minitx(tmp_path, "train.py", "--config", "small.yaml", before=end).returncode == -signal.SIGKILL
    assert quickly(tmp_path, "train.py", "--resume", "runs/small").returncode == 0
    ingester = server.SubprocessServerDataIngester(
        binary, str(tmp_path / "runs"), reload_interval=0, channel_creds_type=ChannelCredsType.LOCAL
    )
    ingester.start()
    points: dict[str, Any] = {}
    for _ in range(100):
        points = ingester.data_provider.read_scalars(
            RequestContext(), experiment_id="", plugin_name="scalars", downsample=1000
        ).get("small", {})
        if points and points["Loss/train"][-1].step == 10:
            break
        time.sleep(0.1)
    assert [point.step for point in points["Loss/train"]] == list(range(1, 11))
    losses = [line["train_loss"] for line in Run(tmp_path / "runs" / "small").metrics()]
    assert [point.value for point in points["Loss/train"]] == pytest.approx(losses, rel=1e-6)


# Signals


def started(folder: Path, *arguments: str, until: str) -> subprocess.Popen[str]:
    """A training that has got as far as to print `until`."""
    process = subprocess.Popen(
        [sys.executable, "-u", str(ROOT / "train.py"), *arguments],
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if until in line:
            return process
    raise AssertionError(process.communicate()[1])


@pytest.mark.slow
def test_signals_in_long_evaluations_save_and_the_run_goes_on_exactly(tmp_path: Path) -> None:
    """Evaluation takes most of the time here, so that the signals meet it."""
    config = small_config(tmp_path, steps=12, batch_size=1, eval_every=4, sample_every=0, checkpoint_every=100)
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, val_fraction=0.9),
        log=dataclasses.replace(config.log, heads_every=0),
    )
    written(tmp_path, config, "small")
    run = tmp_path / "runs" / "small"
    begin = ("--config", "small.yaml")
    for number, arguments, until in ((signal.SIGINT, begin, "4/12"), (signal.SIGTERM, ("--resume", str(run)), "8/12")):
        process = started(tmp_path, *arguments, until=f"step {until}")
        time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 128 + number, err
        assert f"Stopped by {number.name}. Go on with: python train.py --resume " in out
    assert quickly(tmp_path, "train.py", "--resume", str(run)).returncode == 0
    assert quickly(tmp_path, "train.py", "--config", "small.yaml", "--out", "runs/whole").returncode == 0
    assert differences(run, tmp_path / "runs" / "whole") == []


def test_an_evaluation_that_is_stopped_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal comes before the second batch of the evaluation at step 6."""
    import minitx.training.loop

    original, calls = minitx.training.loop.evaluate, [0]

    def evaluating(model: Any, tokens: Any, size: int, runtime: Any, check: Callable[[], None], **more: Any) -> float:
        calls[0] += 1
        left = iter([False, calls[0] == 1])

        def signalled() -> None:
            if next(left, False):
                signal.raise_signal(signal.SIGTERM)
            check()

        return original(model, tokens, size, runtime, signalled, **more)

    monkeypatch.setattr(minitx.training.loop, "evaluate", evaluating)
    written(tmp_path, small_config(tmp_path), "small")
    assert quickly(tmp_path, "train.py", "--config", "small.yaml").returncode == 143
    run = Run(tmp_path / "runs" / "small")
    assert run.checkpoint("last").progress.unevaluated is not None and run.checkpoint("last").step == 6
    assert [line["step"] for line in run.metrics()] == [1, 2, 3, 4, 5]
    assert quickly(tmp_path, "train.py", "--resume", "runs/small").returncode == 0
    assert quickly(tmp_path, "train.py", "--config", "small.yaml", "--out", "runs/whole").returncode == 0
    assert differences(run.path, tmp_path / "runs" / "whole") == []


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    config = small_config(tmp_path, steps=100_000, eval_every=100_000, checkpoint_every=5, sample_every=0)
    written(tmp_path, config, "small")
    process = started(tmp_path, "--config", "small.yaml", until="run folder")
    run = Run(tmp_path / "runs" / "small")
    while not names(run.path):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode in (130, 143)
    checkpoint, faults = newest_whole(run.path)
    assert checkpoint is not None and faults == []


def test_a_signal_while_the_text_is_prepared_leaves_nothing(tmp_path: Path) -> None:
    process = started(tmp_path, "--device", "cpu", until="device cpu")  # the default text, which takes seconds
    while not list((tmp_path / "cache").rglob("unfinished-*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (143, "terminated\n")
    left = [item.name for item in (tmp_path / "cache" / "minitx").iterdir()]
    assert left == [".lock"] and not (tmp_path / "runs").exists()


# Two at once


@pytest.mark.slow
def test_two_trainings_in_the_same_second_both_finish(tmp_path: Path) -> None:
    written(tmp_path, small_config(tmp_path), "small")
    pair = [started(tmp_path, "--config", "small.yaml", until="device") for _ in range(2)]
    for process in pair:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert differences(tmp_path / "runs" / "small", tmp_path / "runs" / "small-2") == []
    assert len([*(tmp_path / "cache" / "minitx").glob("*/meta.json")]) == 1


# Files made to hurt


class Mark:
    """A pickle that leaves a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str, dict[str, object]]]:
        return (exec, (f"open({str(self.mark)!r}, 'w')", {}))


@pytest.mark.slow
def test_a_pickle_in_place_of_any_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the checksums fit, as a stranger would make them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    written(tmp_path, small_config(tmp_path, steps=4), "small")
    assert in_process(["train", "--config", "small.yaml"]).status == 0
    mark = tmp_path / "mark"
    evil = pickle.dumps(Mark(mark))
    files = [file for file in (tmp_path / "runs" / "small").rglob("*") if file.is_file()]
    assert {"optimizer.pt", "config.yaml", "model.safetensors", "tokenizer.model"} <= {file.name for file in files}
    for file in files:
        before = {file: file.read_bytes()}
        file.write_bytes(evil)
        state, data = file.parent / "state.json", tmp_path / "runs" / "small" / "data.json"
        for described, key in ((state, "checksums"), (data, "tokenizer")):
            if described.exists() and described != file:
                before[described] = described.read_bytes()
                content = read_json(described)
                content[key] = {**content[key], file.name: checksum(file)} if key == "checksums" else checksum(file)
                if key == "checksums" or file.name == "tokenizer.model":
                    described.write_bytes(json_bytes(content))
        for command in (
            ["generate", "runs/small", "--max_new_tokens", "2"],
            ["train", "--resume", "runs/small", "--train.steps", "4"],
        ):
            outcome = in_process(command)
            assert outcome.fault == "", (file, outcome)
        assert not mark.exists(), f"{file} was unpickled"
        for changed, original in before.items():
            changed.write_bytes(original)
    pickle.loads(evil)
    assert mark.exists(), "the pickle would have left no mark"


def test_a_model_beyond_the_machine_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "big.yaml").write_text("model:\n  n_layer: 1000\n  d_model: 65536\n")
    outcome = in_process(["train", "--config", "big.yaml", "--device", "cpu"])
    assert outcome.status == 2 and "1,000 layers" in outcome.err and outcome.err.count("\n") == 1


def test_what_a_model_writes_cannot_move_the_cursor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("\x1b[2J\x07 \u202e" * 400)
    config = small_config(tmp_path, steps=2, sample_prompt="\x1b[2J")
    config = dataclasses.replace(config, log=dataclasses.replace(config.log, probes=["\x1b[2J\x07"]))
    written(tmp_path, config, "small")
    outcome = in_process(["train", "--config", "small.yaml"])
    assert outcome.status == 0 and "--- sample" in outcome.out
    assert not {"\x1b", "\x07", "\u202e"} & set(outcome.out + outcome.err)
    shown = json.dumps([str(points) for points in curves(tmp_path / "runs" / "small").values()])
    assert "x1b" in shown and "\\x1b[2J" not in shown.replace("\\\\x1b", "")
