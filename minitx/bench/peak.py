"""Peak memory of training one candidate, alone in a new process."""

import importlib
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

from minitx.bench import steps
from minitx.bench.shapes import Shape
from minitx.bench.suite import Bench
from minitx.system.errors import UserError
from minitx.system.memory import memory_bytes
from minitx.system.runtime import choose_runtime


def peak_memory(bench: Bench, kind: str, shape: Shape) -> dict[str, int]:
    """Bytes at the `peak` of training, and `before` the candidate was built, with everything imported.

    On CUDA those are bytes of tensors. Raises UserError if training fails.
    """
    os.environ["PYTHONSAFEPATH"] = "1"  # else the new process looks for modules in the current folder first
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(train_alone, bench, kind, shape).result()
    except Exception as error:
        raise UserError(f"The memory of {kind} could not be measured: its process failed ({error}).") from error
    finally:
        del os.environ["PYTHONSAFEPATH"]


def train_alone(bench: Bench, kind: str, shape: Shape) -> dict[str, int]:
    """Measure a few steps in this process."""
    runtime = bench.runtime
    choose_runtime(str(runtime.device), runtime.precision, runtime.compile, runtime.threads)  # sets up this process
    if kind == steps.LLAMA:
        importlib.import_module("transformers.models.llama.modeling_llama")
    before = memory_bytes(runtime.device)
    training = steps.build(bench, kind, shape)
    for _ in range(3):  # from the second step on, the optimizer's state and all buffers exist
        training.step()
    return {"peak": memory_bytes(runtime.device), "before": before}
