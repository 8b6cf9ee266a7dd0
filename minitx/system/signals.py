"""Ctrl-C and SIGTERM during training: kept until the loop can stop."""

import os
import signal
from types import FrameType
from typing import Any, Self

from minitx.system.program import is_under_torchrun


class Stopped(Exception):  # noqa: N818  not an error
    """Ends an evaluation early, after a signal."""


class StopRequest:
    """A context that keeps the first Ctrl-C or SIGTERM in `noted`; a second one ends the process at once.

    `signal` is the one that all processes of a run have agreed on, and stop for. torchrun sends Ctrl-C a second time to
    whom the terminal has sent it: there, only the first counts.
    """

    def __init__(self) -> None:
        self.noted: int | None = None
        self.signal: int | None = None

    def __enter__(self) -> Self:
        self.previous: dict[int, Any] = {n: signal.signal(n, self.note) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def note(self, number: int, frame: FrameType | None) -> None:
        if self.noted is not None and not is_under_torchrun():
            os._exit(128 + number)
        self.noted = self.noted or number
