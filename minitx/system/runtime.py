"""Where and how the numbers are computed: device, precision, compilation, threads, seed.

Decided once from the configuration, with a reason for each choice that is printed at the start of a run.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import torch

from minitx.fast.linear import has_fast_bfloat16
from minitx.system.errors import UserError
from minitx.system.memory import keep_freed_memory

P = ParamSpec("P")
R = TypeVar("R")

MAX_AUTO_THREADS = 8
"""Small matrices gain nothing from more threads."""


@dataclass(frozen=True)
class Runtime:
    """The choices, and the reason for each by its name."""

    device: torch.device
    dtype: torch.dtype
    compile: bool
    threads: int
    reasons: dict[str, str]

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which forward passes run: matrix products in `dtype`, weights in float32."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def compiled(self, function: Callable[P, R]) -> Callable[P, R]:
        """The function, compiled, for the shape of its first batch, where that was chosen."""
        return torch.compile(function, dynamic=False) if self.compile else function

    def move(self, tensor: torch.Tensor) -> torch.Tensor:
        """`tensor` on the device, without waiting for what a GPU still has to do: only pinned memory allows that."""
        if self.device.type == "cuda" and tensor.device.type == "cpu":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def describe(self) -> str:
        """One line that names every choice and its reason."""
        choices = {
            "device": str(self.device),
            "precision": str(self.dtype).removeprefix("torch."),
            "compile": "on" if self.compile else "off",
            "threads": str(self.threads),
        }
        return " · ".join(f"{name} {choice} ({self.reasons[name]})" for name, choice in choices.items())


def choose_runtime(device: str, dtype: str, compile: str | bool, threads: str | int) -> Runtime:
    """Resolve the `auto`s of the configuration on this machine, and set the number of threads.

    Raises UserError for a device or precision that is not there.
    """
    chosen_device, why_device = choose_device(device)
    chosen_dtype, why_dtype = choose_dtype(dtype, chosen_device)
    if compile == "auto":
        chosen_compile = chosen_device.type == "cuda"
        why_compile = "pays on CUDA" if chosen_compile else f"takes longer than it saves on {chosen_device.type}"
    else:
        chosen_compile, why_compile = bool(compile), "as asked"
    chosen_threads, why_threads = choose_threads(threads)
    torch.set_num_threads(chosen_threads)
    keep_freed_memory()
    reasons = {"device": why_device, "precision": why_dtype, "compile": why_compile, "threads": why_threads}
    return Runtime(chosen_device, chosen_dtype, chosen_compile, chosen_threads, reasons)


def choose_device(name: str) -> tuple[torch.device, str]:
    """The device that `name` (auto, cpu, cuda, cuda:N or mps) stands for here, and the reason.

    Raises UserError when it is unknown or not there.
    """
    there = ["cpu"]
    if torch.cuda.is_available():
        there += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        there.append("mps")
    if name == "auto":
        if "cuda" in there:
            return torch.device("cuda"), f"{torch.cuda.get_device_name()} found"
        if "mps" in there:
            return torch.device("mps"), "Apple GPU found"
        return torch.device("cpu"), "no GPU found"
    if name not in there:
        raise UserError(f"Device {name!r} is not there: this machine has {', '.join(there)}.")
    return torch.device(name), "as asked"


def choose_dtype(name: str, device: torch.device) -> tuple[torch.dtype, str]:
    """The precision of matrix products that `name` (auto, float32 or bfloat16) stands for on `device`, and why."""
    if name != "auto":
        return getattr(torch, name), "as asked"
    if quickest_dtype(device) == torch.bfloat16:
        return torch.bfloat16, f"this {'GPU' if device.type == 'cuda' else 'processor'} multiplies it fastest"
    return torch.float32, f"no fast bfloat16 on this {device.type}"


def quickest_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, as recent GPUs and server processors do; float32 elsewhere."""
    if device.type == "cuda":
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_bfloat16 = device.type == "cpu" and has_fast_bfloat16()
    return torch.bfloat16 if has_bfloat16 else torch.float32


def choose_threads(threads: str | int) -> tuple[int, str]:
    """The number of CPU threads, and why."""
    if threads != "auto":
        return int(threads), "as asked"
    if os.environ.get("OMP_NUM_THREADS"):
        return torch.get_num_threads(), "OMP_NUM_THREADS"
    cores = torch.get_num_threads()
    if cores > MAX_AUTO_THREADS:
        return MAX_AUTO_THREADS, f"more of the {cores} cores gain nothing"
    return cores, "one for each core"
