"""What a figure depends on besides the code: device, threads, precision, versions, date."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from pathlib import Path

import torch

from minitx import __version__
from minitx.system.runtime import Runtime


def head(runtime: Runtime) -> dict[str, str]:
    """What stands above all tables, each under its name."""
    return {
        "device": device_name(runtime.device),
        "threads": str(runtime.threads),
        "precision": str(runtime.dtype).removeprefix("torch.") + ", where a table names no other",
        "compile": "on" if runtime.compile else "off",
        "versions": f"minitx {__version__}, torch {torch.__version__}, transformers {version('transformers')}, "
        f"python {platform.python_version()}",
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def device_name(device: torch.device) -> str:
    """The device as its maker calls it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    kind = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        kind = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # not Linux, or no x86
        pass
    return f"{kind} ({device.type})"


def version(package: str) -> str:
    """The version of a package, or that it is missing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
