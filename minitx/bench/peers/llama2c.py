"""llama2.c's compiled `run` on a model of ours: call it, read its tokens and its rate.

The weights are in its format; the piece of each token is the token's number, so that the text gives the tokens back.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from minitx.interop.llama2c import export_vocabulary, export_weights
from minitx.model import Transformer
from minitx.system.errors import UserError, require


@dataclass(frozen=True)
class Ran:
    """What one call of `run` wrote."""

    tokens: list[int]
    tokens_per_second: float
    """As run.c prints it: without its start, from the second token on."""


def find_run(path: str) -> Path:
    """The compiled `run` at `path`, or in the checkout at `path`; raises UserError if it is no program."""
    file = Path(path) / "run" if Path(path).is_dir() else Path(path)
    require(
        file.is_file() and os.access(file, os.X_OK),
        f"{file} is no program: compile llama2.c's run.c ('make runfast' or 'make runomp' in its checkout).",
    )
    return file.resolve()


def has_openmp(file: Path) -> bool:
    """Whether the program was compiled to use several threads."""
    content = file.read_bytes()
    return b"GOMP_parallel" in content or b"__kmpc_fork_call" in content


class Llama2c:
    """The program with a model, whose files it reads from `folder`."""

    def __init__(self, program: Path, model: Transformer, folder: Path, threads: int) -> None:
        self.program, self.threads = program, threads
        self.weights, self.vocabulary = folder / "model.bin", folder / "tokenizer.bin"
        export_weights(model, self.weights)
        export_vocabulary(model.vocab_size, self.vocabulary)

    def write(self, n_tokens: int) -> Ran:
        """Write `n_tokens` greedily from the start token; raises UserError if the program fails."""
        options = ["-t", "0", "-n", str(n_tokens), "-z", str(self.vocabulary)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        command = [str(self.program), str(self.weights), *options]
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        except OSError as error:
            raise UserError(f"{self.program} cannot be run ({error.strerror}): compile it on this machine.") from error
        rate = re.search(r"achieved tok/s: (\S+)", done.stderr)
        if done.returncode or rate is None:
            last_line = (done.stderr.strip().splitlines() or ["without a word"])[-1]
            raise UserError(f"{self.program} failed ({last_line}): is it llama2.c's run?")
        tokens_per_second = float(rate[1])
        quick = f"{self.program} wrote {n_tokens} tokens in less than the millisecond that its clock has: "
        require(0 < tokens_per_second < math.inf, quick + "take a larger shape.")
        return Ran([int(word) for word in done.stdout.split()], tokens_per_second)

    def seconds(self, n_tokens: int) -> float:
        """Seconds for `n_tokens` at the rate that the program prints."""
        return n_tokens / self.write(n_tokens).tokens_per_second
