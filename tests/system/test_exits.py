"""Faults of the machine end in one line each."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from minitx.system.errors import UserError
from minitx.system.exits import Terminated, run_command, sentence
from minitx.system.files import with_filename
from minitx.system.text import one_line


def test_a_fault_names_its_file_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught, with_filename(tmp_path / "metrics.jsonl"):
        raise OSError(errno.ENOSPC, "No space left on device")
    said = sentence(caught.value)
    assert str(tmp_path / "metrics.jsonl") in said and "No space left on device" in said and "make room there" in said
    with pytest.raises(OSError, match="other"), with_filename(tmp_path):
        raise OSError(errno.EIO, "broken", "other")


def test_commands_turn_faults_into_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def full() -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "a\nb\x1b[2J")

    def large() -> int:
        raise MemoryError

    def faulty() -> int:
        raise RuntimeError("a fault of the program")

    for command in (full, large):
        assert run_command(command) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ") and err.count("\n") == 1 and "\x1b" not in err
    with pytest.raises(RuntimeError, match="a fault of the program"):
        run_command(faulty)


@pytest.mark.parametrize("file", ["cache/torch/ab/x.py", "cache/torch", "cache"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_compiler_without_its_cache_is_told_what_names_that_folder(
    file: str, wrapped: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """torch.compile wraps the fault once it compiles, but not while it is imported."""
    from torch._inductor.exc import InductorError

    def fail() -> int:
        fault = PermissionError(errno.EACCES, "Permission denied", file)
        raise InductorError(fault, None) if wrapped else fault

    assert run_command(fail) == 2
    assert "TORCHINDUCTOR_CACHE_DIR" not in capsys.readouterr().err
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "cache/torch")
    assert run_command(fail) == 2
    assert (
        f"Permission denied: '{file}'): set TORCHINDUCTOR_CACHE_DIR to another folder, or go on without it, "
        "--compile false.\n"
    ) in capsys.readouterr().err


def test_a_fault_before_torch_is_loaded_does_not_load_it() -> None:
    """It takes a second, and only torch can make the faults that it would be asked about."""
    code = (
        "import sys\n"
        "from minitx.system.exits import run_command\n"
        "def fail(): raise PermissionError(13, 'Permission denied', 'x')\n"
        "assert run_command(fail) == 2 and 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("error: x cannot be read or written (Permission denied)")


def test_one_line() -> None:
    assert one_line("a\n\x1b[31mé\u202e\u2028") == "a\\n\\x1b[31mé\\u202e\\u2028"
    assert one_line("\ud800\u00a0\u200d") == "\\ud800\u00a0\u200d"


def test_of_several_processes_one_says_what_all_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others wait for torchrun to end them; one that it does not end found it alone, and says it."""

    def fail(error: BaseException) -> int:
        raise error

    waits: list[float] = []
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr("minitx.system.exits.time.sleep", waits.append)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        for under_torchrun, rank, error, status, said in (
            (False, 1, UserError("Wrong."), 2, "error: Wrong.\n"),
            (True, 0, UserError("Wrong."), 2, "error: Wrong.\n"),
            (True, 1, UserError("Wrong."), 2, "error: Wrong.\n"),
            (True, 0, KeyboardInterrupt(), 130, "interrupted\n"),
            (True, 1, KeyboardInterrupt(), 130, ""),
            (True, 0, Terminated(), 143, ""),
            (False, 0, Terminated(), 143, "terminated\n"),
        ):
            monkeypatch.setenv("LOCAL_RANK", str(rank))
            if under_torchrun:
                monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
            else:
                monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
            waits.clear()
            assert run_command(partial(fail, error)) == status and capsys.readouterr().err == said
            assert bool(waits) == (status == 2 and under_torchrun and rank == 1)
    finally:
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)


@pytest.mark.parametrize("arguments", [["generate.py"], ["-m", "minitx"], ["-m", "minitx", "heads"]])
def test_torchrun_is_for_training_alone(arguments: list[str]) -> None:
    env = {**os.environ, "TORCHELASTIC_RUN_ID": "none"}
    done = subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and not done.stdout and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: torchrun is for training alone: start ")
