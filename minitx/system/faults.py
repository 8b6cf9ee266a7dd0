"""Faults of the machine as one sentence: a full disk, a folder without permission, memory that runs out."""

from __future__ import annotations

import errno
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


@contextmanager
def with_filename(file: Path) -> Iterator[None]:
    """Add the name of the file to an `OSError` raised inside; that of a failed write has none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(file)
        raise


def sentence(error: OSError) -> str:
    """An error of the system as a sentence: the file, the reason, what to do."""
    reason = error.strerror or str(error) or type(error).__name__
    remedy = REMEDIES.get(error.errno or 0, "see to it")
    return f"{error.filename or 'A file'} cannot be read or written ({reason}): {remedy}, then try again."


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of Python or torch means that memory ran out."""
    message = str(error)
    return isinstance(error, MemoryError) or "can't allocate memory" in message or "out of memory" in message
