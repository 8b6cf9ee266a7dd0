"""Run a command: every error that a person can put right becomes one sentence and an exit status.

Imports nothing heavy, so that `--help` answers at once.
"""

import errno
import os
import signal
import sys
import time
import types
from collections.abc import Callable

from minitx.fast.compiler import COMPILER_CACHE, in_compiler_cache, is_compiler_fault
from minitx.system.errors import UserError
from minitx.system.program import is_under_torchrun, launcher_has_gone
from minitx.system.text import one_line

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

SECONDS_FOR_FIRST = 5.0
"""How long a process waits for the first of several to tell of an error."""


class Terminated(BaseException):
    """SIGTERM as an exception, so that `finally` and `except` clean up half-written files."""


def run_command(command: Callable[[], int]) -> int:
    """Run `command` and return its exit status: 2 for errors that `explain` knows, 130 for Ctrl-C, 143 for SIGTERM.

    Must run before torch is imported, which reads these variables once. A short spin is free on a quiet machine and far
    cheaper on a busy one.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # pages on lost connections would bury a sentence
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        status = command()
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of standard output has gone, as in `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        if is_under_torchrun():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # it comes from the terminal, then from torchrun
        if not is_other():
            print("interrupted", file=sys.stderr)
        return 130
    except Terminated:
        if not is_under_torchrun():  # which says so itself, or had its reason, an error
            print("terminated", file=sys.stderr)
        return 143
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        speaks = not is_other()
        if not speaks:  # the first finds the same in most cases, and torchrun ends this one then
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            time.sleep(SECONDS_FOR_FIRST)
        if speaks or not launcher_has_gone():
            print(f"error: {one_line(message)}", file=sys.stderr)
        return 2
    finally:
        signal.signal(signal.SIGTERM, before)


def is_other() -> bool:
    """Whether torchrun started this process, but not as the first on its machine, which speaks for all."""
    return is_under_torchrun() and os.environ.get("LOCAL_RANK", "0") != "0"


def explain(error: Exception) -> str | None:
    """The sentence for an error that a person can put right; None for a fault of the program."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error) or "out of memory" in str(error):
        return "Memory ran out: take a smaller model, batch_size or context_length, or a larger machine."
    if is_compiler_fault(error):
        reason = str(error).strip().split("\n")[0]
        other = f"set {COMPILER_CACHE} to another folder, or " if in_compiler_cache(error) else ""
        return f"torch.compile failed ({reason}): {other}go on without it, --compile false."
    return sentence(error) if isinstance(error, OSError) else None


def sentence(error: OSError) -> str:
    """An error of the system as a sentence: the file, the reason, what to do."""
    reason = error.strerror or str(error) or type(error).__name__
    remedy = REMEDIES.get(error.errno or 0, "see to it")
    return f"{error.filename or 'A file'} cannot be read or written ({reason}): {remedy}, then try again."


def terminate(number: int, frame: types.FrameType | None) -> None:
    """The handler of SIGTERM outside the training loop."""
    raise Terminated
