"""Real processes on this machine, which gloo connects."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

import minitx.training.loop
from minitx.config import Config, ModelConfig, ParallelConfig
from minitx.run.folder import Run
from minitx.system.errors import UserError
from minitx.system.signals import StopRequest
from minitx.training.launch import joined, launched
from minitx.training.parallel import Group
from minitx.training.session import train
from tests.small import small_config
from tests.training.processes import Ended, run_processes

pytestmark = pytest.mark.slow

KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "multi-head, muon": ({"dropout": 0.2}, {}),
    "grouped, tied, adamw": ({"n_kv_head": 1, "tie_embeddings": True, "dropout": 0.2}, {"optimizer": "adamw"}),
    "latent, muon": ({"attention": "latent"}, {"start": "random"}),
}


def config_of(folder: Path, model: dict[str, Any], train: dict[str, Any], **parallel: Any) -> Config:
    """24 rows an update, at rates at which rounding does not grow."""
    rates = {"learning_rate": 1e-3, "muon_learning_rate": 1e-3, "embedding_learning_rate": None}
    settings = {"steps": 100, "batch_size": 12, "grad_accum": 2, "eval_every": 50, "checkpoint_every": 50, **rates}
    config = small_config(folder, sample_every=0, **{**settings, **train})
    log = dataclasses.replace(config.log, heads_every=50, examples=0)
    shape = ModelConfig(n_layer=2, n_head=2, d_model=16, context_length=16, **model)
    return dataclasses.replace(config, model=shape, log=log, parallel=ParallelConfig(**parallel))


def losses(config: Config) -> list[float]:
    """Every training and validation loss of a run, and the repeated loss that its heads were logged with."""
    lines = Run(Path(config.out)).metrics()
    heads = Run(Path(config.out)).metrics("heads.jsonl")
    assert [line["step"] for line in lines] == list(range(1, config.train.steps + 1))
    return [
        *(line["train_loss"] for line in lines),
        *(line["val_loss"] for line in lines if line["val_loss"] is not None),
        *(loss for line in heads for loss in line["repeated_loss"]),
    ]


def weights_of(config: Config) -> bytes:
    return (Run(Path(config.out)).checkpoint("last").path / "model.safetensors").read_bytes()


def train_by(count: int, config: Config, folder: Path, resume: str | None = None) -> list[Ended]:
    return run_processes(count, lambda rank: train(config, resume), folder)


def all_well(ends: list[Ended]) -> None:
    assert all(end.status == 0 for end in ends), "\n".join(end.errors for end in ends)


@pytest.mark.parametrize("kind", KINDS)
def test_every_number_of_processes_trains_the_same_run(kind: str, tmp_path: Path) -> None:
    """With accumulation and dropout, over 100 steps; one process writes, and it writes all."""
    config = config_of(tmp_path, *KINDS[kind])
    train(config)
    expected = losses(config)
    for count in (2, 3, 4) if kind == "multi-head, muon" else (3,):
        other = dataclasses.replace(config, out=f"{config.out}-by-{count}")
        all_well(train_by(count, other, tmp_path))
        assert losses(other) == pytest.approx(expected, abs=1e-5)
        assert (Path(other.out) / "summary.json").is_file()


def test_deterministic_runs_are_equal_to_the_last_bit(tmp_path: Path) -> None:
    """At rates at which a run is chaotic, too."""
    rates = {"learning_rate": 1e-2, "muon_learning_rate": 2e-2, "grad_accum": 1}
    rates |= {"steps": 40, "eval_every": 20, "checkpoint_every": 20}
    config = config_of(tmp_path, {"dropout": 0.2}, rates, deterministic=True)
    train(config)
    for count in (2, 3, 4):
        other = dataclasses.replace(config, out=f"{config.out}-by-{count}")
        all_well(train_by(count, other, tmp_path))
        assert losses(other) == losses(config) and weights_of(other) == weights_of(config)


@pytest.mark.parametrize("kind", KINDS)
def test_sharded_models_train_the_same_run(kind: str, tmp_path: Path) -> None:
    """Also where blocks are computed twice, and where one process goes on with what shards wrote, and back."""
    model, changes = KINDS[kind]
    config = config_of(tmp_path, model, {**changes, "steps": 30, "eval_every": 10, "decay_fraction": 0.0})
    config = dataclasses.replace(config, log=dataclasses.replace(config.log, heads_every=0))
    train(config)
    out, shards = f"{config.out}-shards", ParallelConfig(shard=True, checkpoint_activations=True)

    def up_to(steps: int, parallel: ParallelConfig) -> Config:
        shorter = dataclasses.replace(config.train, steps=steps)
        return dataclasses.replace(config, out=out, train=shorter, parallel=parallel)

    all_well(train_by(3, up_to(10, shards), tmp_path))
    train(up_to(20, ParallelConfig()), resume=out)
    all_well(train_by(2, up_to(30, shards), tmp_path, resume=out))
    ours, theirs = ([line["train_loss"] for line in Run(Path(path)).metrics()] for path in (out, config.out))
    assert ours == pytest.approx(theirs, abs=1e-5) and len(ours) == 30


def test_shards_average_the_same_weights(tmp_path: Path) -> None:
    """Also where two processes are killed amid the average, and three go on."""
    changes = {"steps": 12, "eval_every": 12, "checkpoint_every": 4, "average_fraction": 0.75}
    config = config_of(tmp_path, {}, changes)
    train(config)
    sharded = dataclasses.replace(config, out=f"{config.out}-shards", parallel=ParallelConfig(shard=True))
    run_processes(2, lambda rank: dying(sharded, 11, None), tmp_path)
    all_well(train_by(3, sharded, tmp_path, resume=sharded.out))
    weights = [load(weights_of(one)) for one in (config, sharded)]
    for name, values in weights[0].items():
        torch.testing.assert_close(weights[1][name], values, atol=1e-4, rtol=0)


def test_a_killed_run_goes_on_with_any_number_of_processes(tmp_path: Path) -> None:
    """1 → 3 → 2 → 1, each killed at an odd step: to the last bit the run that was never killed."""
    settings = {"steps": 40, "grad_accum": 1, "checkpoint_every": 4, "eval_every": 10, "learning_rate": 1e-2}
    settings |= {"average_fraction": 0.5}
    config = config_of(tmp_path, {"dropout": 0.2}, settings, deterministic=True)
    train(config)
    killed = dataclasses.replace(config, out=f"{config.out}-killed")
    for count, step in ((1, 9), (3, 18), (2, 31), (1, 41)):
        resume = killed.out if (Path(killed.out) / "config.yaml").exists() else None
        ends = run_processes(count, lambda rank, at=step, run=resume: dying(killed, at, run), tmp_path)  # type: ignore[misc]
        assert all((end.status == -signal.SIGKILL) == (step < 41) for end in ends), ends
    assert losses(killed) == losses(config) and weights_of(killed) == weights_of(config)


def dying(config: Config, step: int, resume: str | None, rank: int | None = None, by: Any = None) -> int:
    """Train, but before update `step` kill this process, or call `by`, in the process `rank`, by default in each."""
    original, calls = minitx.training.loop.train_step, [0]
    begun = Run(Path(resume)).checkpoint("last").step if resume else 0

    def stepping(*arguments: Any) -> Any:
        calls[0] += 1
        if begun + calls[0] == step and (rank is None or rank == int(os.environ["RANK"])):
            os.kill(os.getpid(), signal.SIGKILL) if by is None else by()
        return original(*arguments)

    minitx.training.loop.train_step = stepping  # type: ignore[assignment]
    return train(config, resume)


def out_of_memory() -> None:
    raise MemoryError


def sentences(ends: list[Ended]) -> list[str]:
    return [line for end in ends for line in end.errors.splitlines() if line.strip()]


@pytest.mark.parametrize("rank", [0, 2])
def test_one_that_is_killed_ends_all_with_one_sentence(rank: int, tmp_path: Path) -> None:
    config = config_of(tmp_path, {}, {"checkpoint_every": 5})
    began = time.monotonic()
    ends = run_processes(3, lambda _: dying(config, 8, None, rank), tmp_path)
    assert time.monotonic() - began < 60
    assert [end.status for end in ends] == [-signal.SIGKILL if i == rank else 2 for i in range(3)]
    (sentence,) = sentences(ends)
    assert sentence.startswith(f"error: Process {rank + 1} of 3 has ended (killed, perhaps for memory).")
    assert sentence.endswith(f"Go on with: torchrun --nproc_per_node 3 -m minitx train --resume {config.out}")
    train(config, resume=config.out)


def test_one_that_runs_out_of_memory_says_so_alone(tmp_path: Path) -> None:
    config = config_of(tmp_path, {}, {})
    ends = run_processes(2, lambda _: dying(config, 3, None, 1, out_of_memory), tmp_path)
    (sentence,) = sentences(ends)
    assert [end.status for end in ends] == [2, 2] and sentence.startswith("error: process 2 of 2: Memory ran out")
    assert "Go on with: torchrun --nproc_per_node 2 -m minitx train --resume" in sentence


def test_one_that_hangs_ends_all_after_the_timeout(tmp_path: Path) -> None:
    config = config_of(tmp_path, {}, {}, timeout=3)
    ends = run_processes(2, lambda _: dying(config, 3, None, 1, lambda: time.sleep(100)), tmp_path, seconds=60)
    (sentence,) = sentences(ends)
    assert "Process 2 of 2 has not answered for 3 s (parallel.timeout)" in sentence
    assert [end.status for end in ends] == [2, -signal.SIGKILL], "the others kill it"


def test_a_signal_to_one_stops_all_with_a_checkpoint(tmp_path: Path) -> None:
    config = config_of(tmp_path, {}, {})
    interrupt = lambda: signal.raise_signal(signal.SIGTERM)  # noqa: E731
    ends = run_processes(3, lambda _: dying(config, 7, None, 1, interrupt), tmp_path)
    assert [end.status for end in ends] == [143] * 3 and not sentences(ends)
    assert Run(Path(config.out)).checkpoint("last").step == 7


@pytest.mark.parametrize("is_torchrun", [True, False])
def test_all_save_and_end_when_torchrun_has_gone(is_torchrun: bool, tmp_path: Path) -> None:
    """These processes have another parent than the module that they share; one that is a shell may go."""
    config = config_of(tmp_path, {}, {"steps": 20})

    def lose() -> None:
        if is_torchrun:
            os.environ["TORCHELASTIC_RUN_ID"] = "none"

    ends = run_processes(2, lambda _: dying(config, 7, None, 1, lose), tmp_path)
    assert [end.status for end in ends] == [143 if is_torchrun else 0] * 2 and not sentences(ends)
    assert Run(Path(config.out)).checkpoint("last").step == (7 if is_torchrun else 20)


def test_a_checkpoint_that_cannot_be_written_stops_all(tmp_path: Path) -> None:
    config = config_of(tmp_path, {}, {"checkpoint_every": 5})

    def full() -> None:
        place = Path(config.out) / "checkpoints"
        place.write_text("in the way")

    ends = run_processes(2, lambda _: dying(config, 3, None, 0, full), tmp_path)
    (sentence,) = sentences(ends)
    assert [end.status for end in ends] == [2, 2] and "checkpoints" in sentence


def test_processes_that_differ_are_refused(tmp_path: Path) -> None:
    config = config_of(tmp_path, {}, {})
    other = dataclasses.replace(config, seed=2)
    (sentence,) = sentences(run_processes(2, lambda rank: train([config, other][rank]), tmp_path))
    assert "Process 2 of 2 differs from process 1 in its settings" in sentence


def test_a_text_that_the_first_cannot_prepare_ends_all(tmp_path: Path) -> None:
    """The others wait for it as long as it takes, but no longer."""
    config = config_of(tmp_path, {}, {})
    missing = dataclasses.replace(config, data=dataclasses.replace(config.data, source=str(tmp_path / "none.txt")))
    ends = train_by(3, missing, tmp_path)
    (sentence,) = sentences(ends)
    assert [end.status for end in ends] == [2] * 3 and "none.txt does not exist" in sentence


def test_rows_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    config = config_of(tmp_path, {}, {"batch_size": 5, "grad_accum": 1})
    (sentence,) = sentences(train_by(2, config, tmp_path))
    assert sentence.startswith("error: 2 processes cannot share train.batch_size 5"), "whoever tells"
    assert "take train.batch_size 4" in sentence


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("MASTER_ADDR", "", "WORLD_SIZE is 4, but MASTER_ADDR is not set: start with torchrun"),
        ("WORLD_SIZE", "abc", "WORLD_SIZE is abc: give the number of processes"),
        ("RANK", "4", "RANK is 4: give a number below 4"),
    ],
)
def test_a_launcher_must_say_who_is_who(name: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for known, good in {"WORLD_SIZE": "4", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(known, good)
    assert launched()
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=sentence):
        launched()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not launched()


def by_hand(rank: int, port: int, timeout: int, settings: str = "") -> subprocess.Popen[str]:
    """A process that joins a group of two, which no launcher started."""
    code = (
        "import sys\n"
        "from minitx.config import ParallelConfig\n"
        "from minitx.system.exits import run_command\n"
        "def wait():\n"
        "    from minitx.training.launch import joined\n"
        "    print('waits', flush=True)\n"
        "    with joined(ParallelConfig(timeout=int(sys.argv[1])), 'cpu') as group:\n"
        "        group.check_same({'settings': sys.argv[2] * group.rank})\n"
        "sys.exit(run_command(wait))"
    )
    places = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command, env = [sys.executable, "-c", code, str(timeout), settings], {**os.environ, **places}
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "waits\n"
    return process


def port_of(held: socket.socket) -> int:
    held.bind(("127.0.0.1", 0))
    return int(held.getsockname()[1])


@pytest.mark.parametrize(
    ("rank", "is_taken", "sentence"),
    [
        (0, False, "1 of 2 processes came within 1 s (parallel.timeout): start the others with the same"),
        (1, False, "The first process did not answer at 127.0.0.1:"),
        (1, True, "Another program seems to hold 127.0.0.1:"),
    ],
)
def test_one_whose_others_never_come_says_so_and_heeds_signals(rank: int, is_taken: bool, sentence: str) -> None:
    with ExitStack() as stack:
        held = stack.enter_context(socket.socket())
        port = port_of(held)
        if is_taken:
            held.listen()  # and never says a word
        else:
            held.close()
        for timeout, status, said in ((1, 2, f"error: {sentence}"), (600, 143, "terminated")):
            with by_hand(rank, port, timeout) as process:
                if timeout > 1:
                    time.sleep(0.5)
                    process.terminate()
                errors = process.communicate(timeout=60)[1]
            assert process.returncode == status and errors.startswith(said) and errors.count("\n") == 1, errors


def test_processes_started_by_hand_meet() -> None:
    """The first holds the store, and may come last."""
    with socket.socket() as held:
        port = port_of(held)
    with by_hand(1, port, 60) as other, by_hand(0, port, 60) as first:
        errors = [process.communicate(timeout=100)[1] for process in (first, other)]
    assert (first.returncode, other.returncode) == (0, 0), errors


def test_processes_started_by_hand_both_say_why_they_end() -> None:
    """Each has a terminal of its own."""
    with socket.socket() as held:
        port = port_of(held)
    with by_hand(1, port, 60, "other") as other, by_hand(0, port, 60, "other") as first:
        for process in (first, other):
            errors = process.communicate(timeout=100)[1]
            assert process.returncode == 2 and errors.count("\n") == 1, errors
            assert errors.startswith("error: Process 2 of 2 differs from process 1 in its settings"), errors


def test_a_signal_that_comes_while_processes_agree_counts_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group(size=2)

    def agree(number: int) -> int:
        signal.raise_signal(signal.SIGINT)
        return number

    monkeypatch.setattr(group, "agree", agree)
    with StopRequest() as stop:
        assert not group.stopped(stop), "or the others would go on without this one"
        monkeypatch.setattr(group, "agree", lambda number: number)
        assert group.stopped(stop)
        assert stop.signal == signal.SIGINT


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("size", [2, 3])
def test_items_are_shared_out_once_and_in_equal_rounds(count: int, size: int) -> None:
    shares = [list(Group(rank=rank, size=size).shared_out(range(count))) for rank in range(size)]
    assert len({len(share) for share in shares}) == 1, "or one would wait for another"
    assert sorted(item for share in shares for item, counts in share if counts) == list(range(count))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux tells the names of threads")
def test_no_thread_of_gloo_outlives_the_run(tmp_path: Path) -> None:
    """It could abort a process that has ended well."""
    config = config_of(tmp_path, {}, {"steps": 2})

    def left(rank: int) -> int:
        train(config)
        return sum("gloo" in task.read_text() for task in Path("/proc/self/task").glob("*/comm"))

    all_well(run_processes(2, left, tmp_path))


def test_matrices_of_every_number_are_shared_out(tmp_path: Path) -> None:
    """One more than the processes, fewer, none left over."""

    def check(rank: int) -> int:
        with joined(ParallelConfig(), "cpu") as group:
            for count in (1, 2, 3, 7):
                matrices = torch.randn(count, 4, 6, generator=torch.Generator().manual_seed(count))
                assert torch.equal(group.in_parts(lambda x: x * 2, matrices), matrices * 2)
        return 0

    all_well(run_processes(3, check, tmp_path))
