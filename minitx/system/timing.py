"""Time candidates by short turns, A B A B …, so that a disturbance of the machine hits all of them alike.

The minimum over the turns is the cost of the code itself; the median is its cost on this machine at this time.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

import torch
from tqdm import tqdm

Candidate = Callable[[], object]
"""The call to time. If it returns a float, that is its time in seconds, from a program that measures itself."""

SHORTEST = 0.05
"""Least seconds of a repeat, in as many calls as that takes; far above the cost of a clock and a loop."""
WARM_UP = 2
"""Calls before the first measurement: the first compiles and allocates, the second runs as all later ones."""
MIN_ROUNDS = 3
"""Least number of rounds, unless `repeats` is less."""


@dataclass(frozen=True)
class Timed:
    """Seconds of a call in every repeat."""

    seconds: list[float]
    calls: int
    """Calls in a repeat."""

    @property
    def minimum(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def alternate(
    candidates: Mapping[str, Candidate],
    *,
    repeats: int,
    seconds: float,
    device: torch.device | str = "cpu",
    shortest: float | None = None,
    label: str = "",
) -> dict[str, Timed]:
    """Time the candidates by turns, for `repeats` rounds or as many as `seconds` allow, but at least `MIN_ROUNDS`.

    A repeat takes `shortest` seconds (`SHORTEST` of them by default) or longer. `label` stands before the progress bar.
    """
    shortest = SHORTEST if shortest is None else shortest
    calls = {name: calibrate(candidate, device, shortest) for name, candidate in candidates.items()}
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    began = time.perf_counter()
    with progress_bar(label, repeats, "round") as bar:
        for done in range(repeats):
            if done >= MIN_ROUNDS and time.perf_counter() - began >= seconds:
                break
            for name, candidate in candidates.items():
                taken[name].append(repeat(candidate, calls[name], device))
            bar.update()
    return {name: Timed(taken[name], calls[name]) for name in candidates}


def progress_bar(label: str, total: int, unit: str) -> "tqdm[NoReturn]":
    """A progress bar on standard error, removed at the end; no bar where that is not a terminal."""
    return tqdm(total=total, desc=label, unit=unit, leave=False, disable=None, dynamic_ncols=True)


def calibrate(candidate: Candidate, device: torch.device | str, shortest: float) -> int:
    """Warm the candidate up, and return how many calls take `shortest` seconds."""
    for _ in range(WARM_UP):
        candidate()
    calls = 1
    while (took := repeat(candidate, calls, device) * calls) < shortest / 2:  # a single short call tells little
        calls = max(2 * calls, min(10 * calls, math.ceil(shortest / max(took, 1e-9) * calls)))
    return max(calls, math.ceil(shortest / took * calls))


def repeat(candidate: Candidate, calls: int, device: torch.device | str) -> float:
    """Seconds of one call, over `calls` of them in a row."""
    synchronise(device)
    began = time.perf_counter()
    reported = [candidate() for _ in range(calls)]
    synchronise(device)
    took = (time.perf_counter() - began) / calls
    seconds = [value for value in reported if isinstance(value, float)]
    return sum(seconds) / calls if seconds else took


def synchronise(device: torch.device | str) -> None:
    """Wait until a GPU has finished, for a call returns before its work is done."""
    kind = torch.device(device).type
    if kind == "cuda":
        torch.cuda.synchronize(device)
    elif kind == "mps":
        torch.mps.synchronize()


def speed_ups(timed: Mapping[str, Timed], base: str) -> dict[str, tuple[float, float]]:
    """The speed of every candidate as a multiple of the speed of `base`: by minimum, and by median."""
    of = timed[base]
    return {name: (of.minimum / time.minimum, of.median / time.median) for name, time in timed.items()}
