"""The suite `parallel`: what several processes gain, and which part of a step takes their time."""

import dataclasses
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack

from minitx.bench import team
from minitx.bench.shapes import Shape
from minitx.bench.suite import Bench, Row, Table
from minitx.bench.team import Laps
from minitx.system.timing import Timed

BASE = "1 × 1"
Measured = dict[str, list[Laps]]
"""Processes × threads → the laps of every round."""


def run(bench: Bench) -> Iterator[Table]:
    """Three tables for every shape."""
    for shape in bench.shapes:
        shape = divisible(shape, bench.settings.process_counts)
        measured = measure(bench, shape)
        yield speed(shape, measured)
        note = "Processes × threads of each. A part lasts from when all begin it to when all have ended it."
        yield by_part("parallel, ms", shape, measured, (*team.PARTS, team.STEP, team.EVALUATION), note)
        note = (
            "Muon is shared out in the first row. Gradients: forward, backward and the sum over processes. "
            "minitx's also sums the loss; DistributedDataParallel sends beside the backward pass."
        )
        ways = (team.MUON, team.MUON_ALONE, team.OURS, team.TORCHS)
        yield by_part("parallel, ms of two ways to the same", shape, measured, ways, note)


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


def times(measured: Measured, part: str) -> dict[str, Timed]:
    """The seconds of a part, by team; without the teams that lack it."""
    return {name: Timed([lap[part] for lap in laps], 1) for name, laps in measured.items() if part in laps[0]}


def speed(shape: Shape, measured: Measured) -> Table:
    """Tokens per second of a whole step, and what share of the cores' worth that is."""
    table = Table(f"parallel, tokens per second · {shape.describe_training()}", raw={"laps": measured})
    steps, cores = times(measured, team.STEP), os.cpu_count() or 1
    workers = {name: min(cores, math.prod(map(int, name.split(" × ")))) for name in measured}
    efficiency: Row = {n: 100 * steps[BASE].minimum / t.minimum / workers[n] for n, t in steps.items()}
    cpu: Row = {name: 1e3 * t.median for name, t in times(measured, team.CPU).items()}
    columns = {"efficiency, %": efficiency, "CPU ms per step, median": cpu}
    table.add_rates("step", steps, BASE, shape.tokens_per_step, {}, **columns)
    table.notes.append(
        f"Candidates: processes × threads of each, with the same rows per update. Efficiency is × by best over the "
        f"cores in use, of {cores}. CPU is of all processes."
    )
    return table


def by_part(title: str, shape: Shape, measured: Measured, parts: tuple[str, ...], note: str) -> Table:
    """Milliseconds of each of `parts` in each team, at best and at the median."""
    table = Table(f"{title} · {shape.describe_training()}", notes=[note])
    for part in parts:
        timed, row = times(measured, part), Row(part=part)
        for name in measured:
            has = name in timed
            row[f"{name}: best"] = 1e3 * timed[name].minimum if has else None
            row[f"{name}: median"] = 1e3 * timed[name].median if has else None
        if timed:
            table.rows.append(row)
    return table
