"""Ctrl-C and SIGTERM, noted for the training loop to act on."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any


class Stopped(Exception):  # noqa: N818  no error
    """A stop was asked for in the middle of an evaluation."""


class StopRequest:
    """While entered, the first Ctrl-C or SIGTERM is noted in `signal` for the loop to act on; a second ends at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            self.previous[number] = signal.signal(number, self.note)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise `Stopped` once there was a signal."""
        if self.signal is not None:
            raise Stopped

    def note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            os._exit(128 + number)
        self.signal = number
