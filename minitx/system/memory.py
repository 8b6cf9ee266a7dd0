"""Memory: how much the machine has, how much a run takes, and reuse of freed memory."""

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

import torch


def keep_freed_memory() -> None:
    """Keep the memory of freed tensors in this process, for the next step to use again.

    Otherwise GNU's C library returns large blocks to the system, which maps and clears them again page by page.
    """
    mmap_max, trim_threshold, top_pad = -4, -1, -2  # from GNU's malloc.h
    with suppress(OSError, AttributeError, TypeError):  # of systems without mallopt
        for option, value in ((mmap_max, 0), (trim_threshold, -1), (top_pad, 64 << 20)):
            ctypes.CDLL(None).mallopt(option, value)


def memory_bytes(device: torch.device) -> int:
    """Peak memory in bytes: of tensors on a CUDA device, else of this process; 0 if the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, StopIteration):  # only on Linux, where getrusage includes the peak of the parent
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    with suppress(ImportError):  # of Windows
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return 0


def limit_memory(most: int) -> None:
    """Hold this process to `most` bytes of data, on Linux; more raises MemoryError, or RuntimeError in torch."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def total_memory(device: torch.device) -> int | None:
    """Memory of `device` in bytes; None if the system does not report it."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    with suppress(AttributeError, ValueError, OSError):  # of Windows
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None
