"""llama2.c's compiled `run` on a model of ours: the weights in its format, a vocabulary whose pieces are the tokens'
numbers, and what it prints read back.

The format is the one that run.c reads (its legacy "version 0"): seven int32, then float32 matrices, each for all layers
in a row. It turns neighbouring components of a head by an angle where minitx and transformers turn component i of the
first half with component i of the second, so the rows of query and key matrices change places.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from minitx.system.errors import UserError, require


@dataclass(frozen=True)
class Ran:
    """What a call of `run` wrote, and its own figure."""

    tokens: list[int]
    tokens_per_second: float
    """From the second token on, as run.c counts."""


def find_run(path: str) -> Path:
    """The compiled `run` that --llama2c names, or that lies in the checkout it names; raises UserError."""
    named = Path(path)
    file = named / "run" if named.is_dir() else named
    require(
        file.is_file() and os.access(file, os.X_OK),
        f"{file} is no program: compile llama2.c's run.c ('make runfast' or 'make runomp' in its checkout).",
    )
    return file.resolve()


def has_openmp(file: Path) -> bool:
    """Whether the program was compiled to use several threads."""
    content = file.read_bytes()
    return b"GOMP_parallel" in content or b"__kmpc_fork_call" in content


def run(program: Path, weights: Path, vocabulary: Path, n_tokens: int, threads: int) -> Ran:
    """Let it write `n_tokens`, always the likeliest, from the start token; raises UserError where it does not."""
    command = [str(program), str(weights), "-t", "0", "-n", str(n_tokens), "-z", str(vocabulary)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    except OSError as error:
        raise UserError(f"{program} cannot be run ({error.strerror}): compile it on this machine.") from error
    rate = re.search(r"achieved tok/s: (\S+)", done.stderr)
    require(
        done.returncode == 0 and rate is not None,
        f"{program} failed ({(done.stderr.strip().splitlines() or ['without a word'])[-1]}): is it llama2.c's run?",
    )
    tokens_per_second = float(rate[1]) if rate else math.nan
    require(
        math.isfinite(tokens_per_second) and tokens_per_second > 0,
        f"{program} wrote {n_tokens} tokens in less than the millisecond that its clock has: take a larger shape.",
    )
    return Ran([int(word) for word in done.stdout.split()], tokens_per_second)
