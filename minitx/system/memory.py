"""Memory: how much the machine has, how much a run takes, and reuse of freed memory."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import torch

MALLOC_TRIM_THRESHOLD, MALLOC_TOP_PAD, MALLOC_MMAP_MAX = -1, -2, -4
"""Options of `mallopt`, from GNU's malloc.h."""


def keep_freed_memory() -> None:
    """Keep the memory of freed tensors in this process, for the next step to use again.

    Otherwise GNU's C library returns large blocks to the system, which maps and clears them again page by page.
    """
    if sys.platform != "linux":
        return
    import ctypes

    with suppress(OSError, AttributeError):
        set_option = ctypes.CDLL(None).mallopt
        for option, value in ((MALLOC_MMAP_MAX, 0), (MALLOC_TRIM_THRESHOLD, -1), (MALLOC_TOP_PAD, 64 << 20)):
            set_option(option, value)


def memory_bytes(device: torch.device) -> int:
    """Peak memory in bytes: of tensors on a CUDA device, else of this process; 0 if the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        # On Linux, a process inherits the peak of getrusage from its parent.
        status = Path("/proc/self/status").read_text("utf-8")
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))
    except (OSError, StopIteration):  # not Linux
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def total_memory(device: torch.device) -> int | None:
    """Memory of `device` in bytes; None if the system does not report it."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return None
