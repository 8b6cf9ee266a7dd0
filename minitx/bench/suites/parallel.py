"""The suite `parallel`: what several processes gain, and which part of a step takes their time."""

import dataclasses
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack

from minitx.bench import team
from minitx.bench.shapes import Shape
from minitx.bench.suite import Bench, Cell, Row, Table
from minitx.bench.team import Laps
from minitx.system.timing import Timed

BASE = "1 × 1"
Measured = dict[str, list[Laps]]
"""Processes × threads → the laps of every round."""


def run(bench: Bench) -> Iterator[Table]:
    """Two tables for every shape."""
    for shape in bench.shapes:
        shape = divisible(shape, bench.settings.process_counts)
        measured = measure(bench, shape)
        yield speed(shape, measured)
        yield by_part(shape, measured)


def divisible(shape: Shape, counts: list[int]) -> Shape:
    """The shape with the nearest batch that every number of processes can share evenly."""
    least = math.lcm(*counts)
    batch = max(1, round(shape.train.batch_size / least)) * least
    return dataclasses.replace(shape, train=dataclasses.replace(shape.train, batch_size=batch))


def measure(bench: Bench, shape: Shape) -> Measured:
    """The laps of all teams, by turns: all threads of the run are shared out, and one process has one or all."""
    counts, threads = bench.settings.process_counts, bench.runtime.threads
    sizes = dict.fromkeys([(1, 1), *((count, max(1, threads // count)) for count in (1, *counts))])
    measured: Measured = {f"{count} × {each}": [] for count, each in sizes}
    with ExitStack() as stack:
        candidates = {}
        for (count, each), (name, laps) in zip(sizes, measured.items(), strict=True):
            candidates[name] = stack.enter_context(team.team(bench, shape, count, each, laps))
        timed = bench.time(candidates, f"parallel {shape.name}", shortest=0.0)
    return {name: laps[-len(timed[name].seconds) :] for name, laps in measured.items()}  # without the warm-up


def times(laps: list[Laps], part: str, kind: str = "seconds") -> Timed:
    """The seconds of a part in every round, or its CPU seconds."""
    return Timed([getattr(lap[part], kind) for lap in laps], 1)


def speed(shape: Shape, measured: Measured) -> Table:
    """Tokens per second of a whole step, and what share of the cores' worth that is."""
    table = Table(f"parallel, tokens per second · {shape.describe_training()}", raw={"laps": measured})
    steps, cores = {name: times(laps, team.STEP) for name, laps in measured.items()}, os.cpu_count() or 1
    used = {name: min(cores, math.prod(map(int, name.split(" × ")))) for name in measured}
    efficiency: Row = {name: 100 * steps[BASE].minimum / steps[name].minimum / used[name] for name in measured}
    cpu: Row = {name: 1e3 * times(laps, team.STEP, "cpu").median for name, laps in measured.items()}
    columns = {"efficiency, %": efficiency, "CPU ms per step": cpu}
    table.add_rates("step", steps, BASE, shape.tokens_per_step, {}, **columns)
    table.notes.append(
        "Candidates: processes × threads of each, with the same rows in an update. Efficiency is × by best over the "
        f"cores in use, of {cores}. CPU is that of all processes, at the median."
    )
    return table


def by_part(shape: Shape, measured: Measured) -> Table:
    """Milliseconds of each part, and of other ways to the same, in every team."""
    table = Table(f"parallel, ms by part · {shape.describe_training()}")
    for part in (*team.PARTS, team.STEP, team.EVALUATION, team.MUON_ALONE, team.OURS, team.TORCHS):
        row = Row(part=part)
        for name, laps in measured.items():
            cells: tuple[Cell, ...] = (None, None, None)
            if part in laps[0]:
                wall, cpu = times(laps, part), times(laps, part, "cpu")
                cells = (1e3 * wall.minimum, 1e3 * wall.median, 1e3 * cpu.median / int(name.split(" × ")[0]))
            row |= zip((f"{name}: best", f"{name}: median", f"{name}: CPU"), cells, strict=True)
        if any(cell is not None for cell in list(row.values())[1:]):
            table.rows.append(row)
    table.notes.append(
        "Processes × threads of each. A part lasts from when all begin it to when all have ended it; CPU is the mean "
        "of the processes, at the median. Muon is shared out in the first of its rows. Gradients: forward, backward "
        "and the sum over processes; DistributedDataParallel sends beside the backward pass, and sums no loss."
    )
    return table
