"""Memory: how much the machine has, how much was taken, and holding on to what was freed."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import torch

MALLOC_TRIM_THRESHOLD, MALLOC_TOP_PAD, MALLOC_MMAP_MAX = -1, -2, -4
"""Names of GNU's malloc.h."""


def keep_freed_memory() -> None:
    """Have the C library hold on to memory that tensors gave back, for the next step to use again.

    GNU's otherwise hands large pieces back to the system each time, which then maps and clears them page by page.
    """
    if sys.platform != "linux":
        return
    import ctypes

    with suppress(OSError, AttributeError):
        set_option = ctypes.CDLL(None).mallopt
        for option, value in ((MALLOC_MMAP_MAX, 0), (MALLOC_TRIM_THRESHOLD, -1), (MALLOC_TOP_PAD, 64 << 20)):
            set_option(option, value)


def memory_bytes(device: torch.device) -> int:
    """Most memory taken so far: by tensors on a CUDA device, else by this process; 0 where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        # Not from getrusage, whose peak Linux hands down from the process that started this one.
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


def memory_there(device: torch.device) -> int | None:
    """Bytes of memory that `device` has; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return None
