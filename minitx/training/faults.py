"""A fault of one of several processes: one sentence, from the process where it began, and all of them end.

The others notice it when they wait for that process in vain. They tell only if it could not tell itself.
"""

import contextlib
import os
import platform
import signal
import sys
import time
from typing import NoReturn

from minitx.system.errors import UserError
from minitx.system.exits import explain
from minitx.system.program import is_started_by_hand, launcher_has_gone
from minitx.system.text import one_line
from minitx.training.parallel import FAULT, Group

SECONDS_TO_TELL = 1.5
LIVES = "minitx/lives/"
PLACE = "minitx/place/"


def register(group: Group) -> None:
    """Tell the others where this process runs."""
    group.store.set(f"{PLACE}{group.rank}", f"{platform.node()} {os.getpid()}")


def is_of_another(error: Exception) -> bool:
    """Whether `error` only says that another process did not answer."""
    words = ("gloo", "nccl", "connection closed", "timed out", "connection reset", "broken pipe", "watchdog")
    is_distributed = type(error).__name__.startswith("Dist") or type(error) is RuntimeError
    return is_distributed and any(word in str(error).lower() for word in words)


def tell_once(group: Group, error: Exception) -> NoReturn:
    """Print the sentence for `error` unless another process does, and end. A fault of the program is raised."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher sends it as soon as one has ended
    try:
        tell_for_silent(group, error) if is_of_another(error) else tell(group, error)
    except Exception as lost:  # the store has gone with what held it: torchrun, or process 1
        if lost is error:
            raise
        holder, teller = ("torchrun", 0) if launcher_has_gone() else (f"Process 1 of {group.size}", 1)
        if not is_of_another(error):
            print_sentence(group, error)
        elif group.rank == teller:
            print(f"error: {holder} has ended.{group.way_on}", file=sys.stderr)
    sys.stderr.flush()
    if is_started_by_hand():  # what the first holds serves the others until they have spoken
        time.sleep(SECONDS_TO_TELL)
    os._exit(2)  # an orderly end would wait for the others


def tell(group: Group, error: Exception) -> None:
    """Print the sentence for this process's own fault, if it is the first; by hand, each has a terminal of its own."""
    if group.store.add(FAULT, 1) == 1 or is_started_by_hand():
        print_sentence(group, error)


def print_sentence(group: Group, error: Exception) -> None:
    """Print what explains `error`; raise it where nothing does."""
    sentence = explain(error)
    if sentence is None:
        raise error
    sentence = one_line(sentence)
    if not isinstance(error, UserError):  # which most often all processes find, such as a wrong setting
        sentence = f"process {group.rank + 1} of {group.size}: {sentence}{group.way_on}"
    print(f"error: {sentence}", file=sys.stderr)


def tell_for_silent(group: Group, error: Exception) -> None:
    """Print a sentence for the processes that have gone or hang, and end those of them on this machine."""
    group.store.set(f"{LIVES}{group.rank}", "")
    end = time.monotonic() + SECONDS_TO_TELL
    while time.monotonic() < end:
        if group.store.add(FAULT, 0):
            return
        time.sleep(0.1)
    silent = [rank for rank in range(group.size) if not group.store.check([f"{LIVES}{rank}"])]
    if group.store.add(FAULT, 1) > 1:
        return
    numbers = ", ".join(str(rank + 1) for rank in silent)
    names = f"{'Process' if len(silent) == 1 else 'Processes'} {numbers}"
    have = "has" if len(silent) == 1 else "have"
    fault = "ended (killed, perhaps for memory)"
    if "timed out" in str(error).lower() or "watchdog" in str(error).lower():
        fault = f"not answered for {group.settings.timeout} s (parallel.timeout)"
    print(f"error: {names} of {group.size} {have} {fault}.{group.way_on}", file=sys.stderr)
    for rank in silent:
        machine, number = group.store.get(f"{PLACE}{rank}").decode().rsplit(" ", 1)
        if machine == platform.node():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(number), signal.SIGKILL)
