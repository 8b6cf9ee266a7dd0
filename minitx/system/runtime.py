"""How a run computes: device, precision, compilation, threads, chosen once, each with its reason."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch

from minitx.fast.linear import has_fast_bfloat16
from minitx.system.errors import UserError
from minitx.system.memory import keep_freed_memory

MAX_AUTO_THREADS = 8
"""More threads do not speed up small matrices."""


@dataclass(frozen=True)
class Runtime:
    """The choices, and their reasons by name, in the order of `describe`."""

    device: torch.device
    dtype: torch.dtype
    compile: bool
    threads: int
    reasons: dict[str, str]

    @property
    def precision(self) -> Literal["float32", "bfloat16"]:
        """The name of `dtype` in the configuration."""
        return "bfloat16" if self.dtype == torch.bfloat16 else "float32"

    def autocast(self) -> AbstractContextManager[object]:
        """Context for forward passes: matrix products in `dtype`, weights in float32."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def compiled(self, function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """`function`, compiled for the shape of its first batch if compilation was chosen."""
        return torch.compile(function, dynamic=False) if self.compile else function

    def move(self, tensor: torch.Tensor) -> torch.Tensor:
        """`tensor` on the device. Pinned memory lets the copy go on beside the GPU's other work."""
        if self.device.type == "cuda" and tensor.device.type == "cpu":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def describe(self) -> str:
        """One line with every choice and its reason."""
        choices = (self.device, self.precision, "on" if self.compile else "off", self.threads)
        reasons = zip(choices, self.reasons.items(), strict=True)
        return " · ".join(f"{name} {choice} ({reason})" for choice, (name, reason) in reasons)


def choose_runtime(device: str, dtype: str, compile: str | bool, threads: str | int, processes: int = 1) -> Runtime:
    """Replace each `auto` by a choice for this machine, and set the number of threads; raises as `choose_device`.

    processes: those that share this machine's cores.
    """
    chosen_device, why_device = choose_device(device)
    chosen_dtype, why_dtype = choose_dtype(dtype, chosen_device)
    chosen_compile, why_compile = bool(compile), "as set"
    if compile == "auto":
        chosen_compile = chosen_device.type == "cuda"
        why_compile = "pays on CUDA" if chosen_compile else f"takes longer than it saves on {chosen_device.type}"
    chosen_threads, why_threads = choose_threads(threads, processes)
    torch.set_num_threads(chosen_threads)
    keep_freed_memory()
    reasons = {"device": why_device, "precision": why_dtype, "compile": why_compile, "threads": why_threads}
    return Runtime(chosen_device, chosen_dtype, chosen_compile, chosen_threads, reasons)


def choose_device(name: str) -> tuple[torch.device, str]:
    """The device of a name (auto, cpu, cuda, cuda:N or mps), and the reason; raises UserError if it is not here."""
    devices = ["cpu"]
    if torch.cuda.is_available():
        devices += ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        devices.append("mps")
    if name == "auto":
        if "cuda" in devices:
            return torch.device("cuda"), f"{torch.cuda.get_device_name()} found"
        if "mps" in devices:
            return torch.device("mps"), "Apple GPU found"
        return torch.device("cpu"), "no GPU found"
    if name not in devices:
        raise UserError(f"Device {name!r} is not there: this machine has {', '.join(devices)}.")
    return torch.device(name), "as set"


def choose_dtype(name: str, device: torch.device) -> tuple[torch.dtype, str]:
    """The precision of matrix products that `name` (auto, float32 or bfloat16) selects on `device`, and the reason."""
    if name != "auto":
        return getattr(torch, name), "as set"
    if quickest_dtype(device) == torch.bfloat16:
        return torch.bfloat16, f"this {'GPU' if device.type == 'cuda' else 'processor'} multiplies it fastest"
    return torch.float32, f"no fast bfloat16 on this {device.type}"


def quickest_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 if the hardware multiplies it, as recent GPUs and server processors do; else float32."""
    if device.type == "cuda":
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_bfloat16 = device.type == "cpu" and has_fast_bfloat16()
    return torch.bfloat16 if has_bfloat16 else torch.float32


def choose_threads(threads: str | int, processes: int = 1) -> tuple[int, str]:
    """The number of CPU threads for each of `processes`, and the reason."""
    share = max(1, (os.cpu_count() or 1) // processes)
    if threads != "auto" and (processes == 1 or int(threads) <= share):
        return int(threads), "as set"
    if os.environ.get("OMP_NUM_THREADS"):
        return torch.get_num_threads(), "OMP_NUM_THREADS"
    if processes > 1:
        return min(share, MAX_AUTO_THREADS), f"{processes} processes share the cores"
    cores = torch.get_num_threads()
    if cores > MAX_AUTO_THREADS:
        return MAX_AUTO_THREADS, f"more of the {cores} cores gain nothing"
    return cores, "one for each core"
