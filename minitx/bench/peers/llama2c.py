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
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from minitx.config.settings import UserError, require
from minitx.model import Transformer

START = 1
"""The token that run.c starts with; it also ends the text when it comes."""
EPSILON, THETA = 1e-5, 10000.0
"""Built into run.c."""
BLOCK_PARTS = (
    "attention_norm",
    "attention.query",
    "attention.key",
    "attention.value",
    "attention.output",
    "feed_forward_norm",
    "feed_forward.gate",
    "feed_forward.down",
    "feed_forward.up",
)
"""In the order of the file."""


def interleaved(weight: Tensor, n_head: int) -> Tensor:
    """The rows of a query or key matrix, (head * d_head, d_model), such that the two components that turn together are
    neighbours."""
    d_head = weight.size(0) // n_head
    halves = weight.view(n_head, 2, d_head // 2, weight.size(1))  # (head, half, component, d_model)
    return halves.transpose(1, 2).reshape(weight.shape)


@torch.no_grad()
def export_weights(model: Transformer, file: Path) -> None:
    """Write the model for run.c; raises UserError where it is not of the architecture that run.c has built in."""
    config = model.config
    require(
        config.attention == "multi_head" and not config.qk_norm and config.kept_heads is None,
        "llama2.c runs Llama's architecture alone: no query-key norm, no latent attention, no pruned heads.",
    )
    require(
        config.norm_eps == EPSILON and config.rope_theta == THETA,
        f"llama2.c has norm_eps {EPSILON} and rope_theta {THETA} built in, but the model has {config.norm_eps} and "
        f"{config.rope_theta}.",
    )
    weights = dict(model.named_parameters())
    with file.open("wb") as out:
        sizes = (config.d_model, config.ff_width, config.n_layer, config.n_head, config.kv_heads)
        vocab = model.vocab_size if config.tie_embeddings else -model.vocab_size  # the sign tells an output of its own
        out.write(struct.pack("<7i", *sizes, vocab, config.context_length))
        put(out, weights["embedding.weight"])
        for part in BLOCK_PARTS:
            for layer in range(config.n_layer):
                weight: Tensor = weights[f"blocks.{layer}.{part}.weight"]
                if part in ("attention.query", "attention.key"):
                    weight = interleaved(weight, weight.size(0) // config.d_head)
                put(out, weight)
        put(out, weights["final_norm.weight"])
        put(out, torch.zeros(config.context_length, config.d_head))  # two tables of angles that run.c no longer reads
        if not config.tie_embeddings:
            put(out, weights["output.weight"])


def put(out: BinaryIO, weight: Tensor) -> None:
    """Append a matrix as little-endian float32."""
    out.write(weight.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes())


def export_vocabulary(vocab_size: int, file: Path) -> None:
    """A tokenizer file for run.c in which each piece is the number of its token and a line break."""
    with file.open("wb") as out:
        pieces = [f"{token}\n".encode() for token in range(vocab_size)]
        out.write(struct.pack("<i", max(map(len, pieces))))
        for piece in pieces:
            out.write(struct.pack("<fi", 0.0, len(piece)) + piece)


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
