"""Run a command: faults become one sentence and an exit status.

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
    """SIGTERM, so that what is half-written is cleaned up on the way out."""


def run_command(command: Callable[[], int]) -> int:
    """Run `command` and return its exit status; what a person can put right becomes one line on standard error and
    status 2, and so does a fault of the world such as a full disk.

    Called before torch is imported, for its threads read their settings then: one that waits for another spins only
    briefly before it sleeps, which costs nothing on a quiet machine and much less on a busy one.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.signal(signal.SIGTERM, terminate)
    try:
        status = command()
        sys.stdout.flush()
        return status
    except UserError as error:
        return failed(str(error))
    except BrokenPipeError:  # the reader of our output went away, as in `… | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Terminated:
        print("terminated", file=sys.stderr)
        return 143
    except Exception as error:
        from minitx.fast.compiler import COMPILER_CACHE, in_compiler_cache, is_compiler_fault

        if is_out_of_memory(error):
            return failed("Memory ran out: take a smaller model, batch_size or context_length, or a larger machine.")
        if is_compiler_fault(error):
            reason = str(error).strip().split("\n")[0]
            other = f"set {COMPILER_CACHE} to another folder, or " if in_compiler_cache(error) else ""
            return failed(f"torch.compile failed ({reason}): {other}go on without it, --compile false.")
        if isinstance(error, OSError):
            return failed(sentence(error))
        raise
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def failed(message: str) -> int:
    """Print why a command failed, on one line; the exit status."""
    print(f"error: {one_line(message)}", file=sys.stderr)
    return 2


def terminate(number: int, frame: types.FrameType | None) -> None:
    """What SIGTERM does while nothing else is asked of it."""
    raise Terminated
