"""Most memory that a candidate takes to train, measured alone: on a CPU in a process of its own.

`python -m minitx.bench.peak JSON` is that process: it builds the candidate, takes some steps and prints the bytes
that were resident at most, and those that were resident before it was built, with everything imported.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from minitx.bench import steps
from minitx.bench.shapes import Shape, shape_from_json
from minitx.fast.compiler import forget_programs
from minitx.system.errors import UserError
from minitx.system.memory import memory_bytes
from minitx.system.runtime import Runtime, choose_runtime

STEPS = 3
"""From the second step on, the optimizer's state and every buffer are there."""


def peak_memory(kind: str, shape: Shape, runtime: Runtime, nanogpt: str | None) -> dict[str, int]:
    """Bytes at the peak of training, and before it: `peak`, `before`.

    On CUDA those of tensors, in this process; else those resident in memory, in a process of its own.
    """
    if runtime.device.type == "cuda":
        return cuda_peak(kind, shape, runtime, nanogpt)
    task = {
        "kind": kind,
        "shape": shape.as_json(),
        "nanogpt": nanogpt,
        "runtime": {
            "device": str(runtime.device),
            "dtype": str(runtime.dtype).removeprefix("torch."),
            "compile": runtime.compile,
            "threads": runtime.threads,
        },
    }
    root = str(Path(__file__).parents[2])  # this very code, wherever it is run from
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-m", "minitx.bench.peak", json.dumps(task)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise UserError(f"The memory of {kind} could not be measured: its process failed ({reason}).")
    return dict(json.loads(lines[-1]))


def cuda_peak(kind: str, shape: Shape, runtime: Runtime, nanogpt: str | None) -> dict[str, int]:
    """The same for tensors on a CUDA device."""
    gc.collect()  # compiled models lie in cycles
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(runtime.device)
    before = torch.cuda.memory_allocated(runtime.device)
    train(kind, shape, runtime, nanogpt)
    forget_programs()  # which hold on to the model
    return {"peak": memory_bytes(runtime.device), "before": before}


def train(kind: str, shape: Shape, runtime: Runtime, nanogpt: str | None) -> None:
    """Build the candidate and take some steps."""
    step = steps.build(kind, shape, runtime, nanogpt)
    for _ in range(STEPS):
        step()


def main(arguments: list[str]) -> int:
    """Measure the task in the first argument, as JSON; the exit status."""
    task: dict[str, Any] = json.loads(arguments[0])
    runtime = choose_runtime(**task["runtime"])
    if task["kind"] == steps.LLAMA:
        importlib.import_module("transformers.models.llama.modeling_llama")
    before = memory_bytes(torch.device("cpu"))
    train(task["kind"], shape_from_json(task["shape"]), runtime, task["nanogpt"])
    print(json.dumps({"peak": memory_bytes(torch.device("cpu")), "before": before}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
