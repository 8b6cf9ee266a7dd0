"""Faults of the world → one sentence: a disk that is full, a folder that cannot be written, memory that runs out."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REMEDIES = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there, for your quota is used up",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "use a folder on a disk that can be written",
    errno.EACCES: "get permission for it, or use another folder",
    errno.EPERM: "get permission for it, or use another folder",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.EIO: "check the disk",
}

COMPILER_CACHE = "TORCHINDUCTOR_CACHE_DIR"
"""Variable that names the folder in which torch.compile keeps programs; torch sets it where nobody has."""


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Give an `OSError` raised inside the name of the file, which a failed write does not know."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(file)
        raise


def sentence(error: OSError) -> str:
    """What went wrong where, and what to do."""
    reason = error.strerror or str(error) or type(error).__name__
    remedy = REMEDIES.get(error.errno or 0, "see to it")
    return f"{error.filename or 'A file'} cannot be read or written ({reason}): {remedy}, then try again."


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception is Python's or torch's way to say that memory ran out."""
    said = str(error)
    return isinstance(error, MemoryError) or "can't allocate memory" in said or "out of memory" in said


def is_compiler_fault(error: BaseException) -> bool:
    """Whether an exception is torch.compile's way to say that it cannot compile, for want of a C++ compiler, say."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor")) or in_compiler_cache(error)


def in_compiler_cache(error: BaseException) -> bool:
    """Whether an exception says that a file in torch.compile's cache, or the folder itself, cannot be had."""
    fault = getattr(error, "inner_exception", error)
    cache = os.environ.get(COMPILER_CACHE)
    if cache is None or not isinstance(fault, OSError) or fault.filename is None:
        return False
    file = Path(str(fault.filename))
    return file.is_relative_to(cache) or Path(cache).is_relative_to(file)  # or a folder that was to hold it


def one_line(text: object) -> str:
    """`text` on one line, with whatever could move a terminal's cursor written as a code such as \\x1b."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
