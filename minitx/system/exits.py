"""Run a command: every error that a person can put right becomes one sentence and an exit status.

Imports nothing heavy, so that `--help` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import types
from collections.abc import Callable

from minitx.system.errors import UserError
from minitx.system.faults import is_out_of_memory, sentence
from minitx.system.text import one_line


class Terminated(BaseException):
    """SIGTERM as an exception, so that `finally` and `except` clean up half-written files."""


def run_command(command: Callable[[], int]) -> int:
    """Run `command` and return its exit status: 2 for errors that `explain` knows, 130 for Ctrl-C, 143 for SIGTERM.

    Must run before torch is imported, which reads GOMP_SPINCOUNT once. A short spin is free on a quiet machine and far
    cheaper on a busy one.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, terminate)
    try:
        status = command()
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of standard output has gone, as in `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Terminated:
        print("terminated", file=sys.stderr)
        return 143
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        print(f"error: {one_line(message)}", file=sys.stderr)
        return 2
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def explain(error: Exception) -> str | None:
    """The sentence for an error that a person can put right; None for a fault of the program."""
    if isinstance(error, UserError):
        return str(error)
    if is_out_of_memory(error):
        return "Memory ran out: take a smaller model, batch_size or context_length, or a larger machine."
    if "torch" in sys.modules:  # importing it here would take a second
        from minitx.fast.compiler import COMPILER_CACHE, in_compiler_cache, is_compiler_fault

        if is_compiler_fault(error):
            reason = str(error).strip().split("\n")[0]
            other = f"set {COMPILER_CACHE} to another folder, or " if in_compiler_cache(error) else ""
            return f"torch.compile failed ({reason}): {other}go on without it, --compile false."
    return sentence(error) if isinstance(error, OSError) else None


def terminate(number: int, frame: types.FrameType | None) -> None:
    """The handler of SIGTERM outside the training loop."""
    raise Terminated
