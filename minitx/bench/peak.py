"""Peak memory of training one candidate, alone in a new process."""

from __future__ import annotations

import concurrent.futures
import importlib
import multiprocessing

from minitx.bench import steps
from minitx.bench.machine import precision
from minitx.bench.shapes import Shape
from minitx.bench.suite import Bench
from minitx.system.errors import UserError
from minitx.system.memory import memory_bytes
from minitx.system.runtime import choose_runtime

STEPS = 3
"""From the second step on, the optimizer's state and all buffers exist."""


def peak_memory(bench: Bench, kind: str, shape: Shape) -> dict[str, int]:
    """Bytes at the `peak` of training, and `before` the candidate was built, with everything imported.

    On CUDA those are bytes of tensors. Raises UserError if training fails.
    """
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(train_alone, bench, kind, shape).result()
        except Exception as error:
            raise UserError(f"The memory of {kind} could not be measured: its process failed ({error}).") from error


def train_alone(bench: Bench, kind: str, shape: Shape) -> dict[str, int]:
    """Measure a few steps in this process."""
    asked = bench.runtime
    choose_runtime(
        str(asked.device), precision(asked.dtype), asked.compile, asked.threads
    )  # sets threads, keeps memory
    if kind == steps.LLAMA:
        importlib.import_module("transformers.models.llama.modeling_llama")
    before = memory_bytes(asked.device)
    step = steps.build(bench, kind, shape)
    for _ in range(STEPS):
        step()
    return {"peak": memory_bytes(asked.device), "before": before}
