"""llama2.c's compiled `run` on a model of ours: call it, read its tokens and its rate.

The piece of every token is the token's number, so that the text gives the tokens back.
"""

import math
import os
import re
import subprocess
from pathlib import Path

from minitx.interop.llama2c import export_vocabulary, export_weights
from minitx.model import Transformer
from minitx.system.errors import UserError, require


def find_run(path: str) -> Path:
    """The compiled `run` at `path`, or in the checkout at `path`; raises UserError if it is no program."""
    file = Path(path) / "run" if Path(path).is_dir() else Path(path)
    advice = "compile llama2.c's run.c ('make runfast' or 'make runomp' in its checkout)."
    require(file.is_file() and os.access(file, os.X_OK), f"{file} is no program: {advice}")
    return file.resolve()


def has_openmp(file: Path) -> bool:
    """Whether the program was compiled to use several threads."""
    return any(name in file.read_bytes() for name in (b"GOMP_parallel", b"__kmpc_fork_call"))


class Llama2c:
    """The program with a model, whose files it reads from `folder`, where it runs."""

    def __init__(self, program: Path, model: Transformer, folder: Path, threads: int) -> None:
        self.program, self.threads = program, threads
        self.folder = folder.resolve()
        self.weights, self.vocabulary = self.folder / "model.bin", self.folder / "tokenizer.bin"
        export_weights(model, self.weights)
        export_vocabulary(model.vocab_size, self.vocabulary)

    def write(self, n_tokens: int) -> tuple[list[int], float]:
        """Tokens written greedily from the start token, and seconds at the rate that the program prints.

        The rate leaves out the program's start and its first token. Raises UserError if the program fails.
        """
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        command: list[str | Path] = [self.program, self.weights, "-t", "0", "-n", str(n_tokens), "-z", self.vocabulary]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, cwd=self.folder, env=environment, check=False
            )
        except OSError as error:
            raise UserError(f"{self.program} cannot be run ({error.strerror}): compile it on this machine.") from error
        rate = re.search(r"achieved tok/s: (\S+)", done.stderr)
        if done.returncode or rate is None:
            last_line = (done.stderr.strip().splitlines() or ["without a word"])[-1]
            raise UserError(f"{self.program} failed ({last_line}): is it llama2.c's run?")
        quick = f"{self.program} wrote {n_tokens} tokens in less than the millisecond that its clock counts in"
        require(0 < float(rate[1]) < math.inf, f"{quick}: take a larger shape.")
        return [int(word) for word in done.stdout.split()], n_tokens / float(rate[1])

    def seconds(self, n_tokens: int) -> float:
        """The seconds of `write`."""
        return self.write(n_tokens)[1]
