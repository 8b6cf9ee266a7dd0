"""Several processes of one run, forked from the test, which has imported everything already."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch.distributed import TCPStore  # type: ignore[attr-defined]

CONTEXT = multiprocessing.get_context("fork")


@dataclass
class Ended:
    """How a process ended."""

    status: int | None
    """Its exit status, or less than 0 for the signal that killed it."""
    errors: str
    """What it wrote to standard error."""


def run_processes(count: int, function: Callable[[int], object], folder: Path, seconds: float = 120) -> list[Ended]:
    """Call `function` with the rank in each of `count` processes, as a launcher would start them."""
    ports = CONTEXT.SimpleQueue()  # the store starts after the forks: who inherits its sockets can hang

    def body(rank: int) -> None:
        places = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": count}
        os.environ.update({name: str(value) for name, value in places.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(ports.get()), TORCHELASTIC_USE_AGENT_STORE="True")
        with (folder / f"errors-{rank}").open("w") as errors:
            os.dup2(errors.fileno(), 2)
            sys.stderr = errors
            faulthandler.dump_traceback_later(0.9 * seconds, file=errors)  # where one hangs
            status = 1
            with contextlib.redirect_stdout(None):
                try:
                    status = int(function(rank) or 0)  # type: ignore[call-overload]
                except BaseException:
                    traceback.print_exc()
            errors.flush()
            os._exit(status)

    processes = [CONTEXT.Process(target=body, args=(rank,)) for rank in range(count)]
    for process in processes:
        process.start()
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # torchrun's own process holds it too
    for _ in processes:
        ports.put(store.port)
    for process in processes:
        process.join(seconds)
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()
    errors = [(folder / f"errors-{rank}").read_text("utf-8") for rank in range(count)]
    return [Ended(process.exitcode, text) for process, text in zip(processes, errors, strict=True)]
