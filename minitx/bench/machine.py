"""What a timing depends on besides the code: device, threads, precision, versions, date."""

import importlib.metadata
import platform
import time
from pathlib import Path

import torch

from minitx import __version__
from minitx.system.runtime import Runtime


def head(runtime: Runtime) -> dict[str, str]:
    """The lines printed above all tables, by name."""
    programs = f"minitx {__version__}, torch {torch.__version__}, transformers {version('transformers')}"
    return {
        "device": device_name(runtime.device),
        "threads": str(runtime.threads),
        "precision": f"{runtime.precision}, where a table names no other",
        "compile": "on" if runtime.compile else "off",
        "versions": f"{programs}, python {platform.python_version()}",
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def device_name(device: torch.device) -> str:
    """The maker's name of the device."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpus = Path("/proc/cpuinfo")  # on Linux; it names the model on x86 alone
    lines = cpus.read_text("utf-8").splitlines() if cpus.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{[*models, platform.processor() or platform.machine()][0]} ({device.type})"


def version(package: str) -> str:
    """The version of a package, or "not installed"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
