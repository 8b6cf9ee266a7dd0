"""The suite `budget`: the figure that a recipe reaches in fixed seconds of training. docs/budget.md has the rules.

The schedules end with the budget, so the steps are set before: as many as fit at the least seconds of a step. On a CPU
these are seconds of the processor for each thread, which other programs hardly change. Then training has fixed steps,
and its figure can be reproduced to the last bit with --steps.
"""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from minitx.bench.peers import nanogpt
from minitx.bench.settings import BenchConfig
from minitx.bench.shapes import shape_of
from minitx.bench.sides import Side, side_of, take_turns, with_steps
from minitx.bench.significance import welch_p
from minitx.bench.suite import Bench, Row, Table
from minitx.bench.tracks import Track, recipe_on, renumbered, track_of
from minitx.bench.training import our_training
from minitx.config import Config
from minitx.data.token_files import require_window
from minitx.system.errors import require
from minitx.system.runtime import Runtime, choose_runtime
from minitx.system.timing import Candidate, alternate
from minitx.training.optim import learning_rate_factor

OURS, NANO_GPT = "minitx", "nanoGPT"
ROUNDS, ROUND = 40, 0.1
"""Of timing a step: how many, and the seconds of one; the least counts."""
SLACK = 1.1
"""Times the budget that the training of a record may take."""
CLAIM = 3
"""Seeds that a claim needs."""
GIVEN = "How long to train was given: a record names the run that timed the steps."
Make = Callable[[int, int], Side]
"""Steps and a seed → a training, whose one evaluation at its end is the figure."""


class Result(NamedTuple):
    """The trainings of one recipe, one for each seed."""

    sides: list[Side]
    seconds_per_step: float
    """The least; NaN where the steps were given."""

    @property
    def figures(self) -> list[float]:
        return [side.curve[-1].loss for side in self.sides]


def run(bench: Bench) -> Iterator[Table]:
    """A table for each track and budget."""
    settings = bench.settings
    for name in settings.track_names:
        track, makers, about = recipes(bench, name)
        baselines = track.baselines()
        step = dict.fromkeys(makers, math.nan) if settings.steps else seconds_of_steps(makers, bench)
        for budget in settings.budget_seconds if settings.steps is None else [None]:
            size = f"{settings.steps} steps" if budget is None else f"{budget:g} s of training"
            steps = {name: settings.steps or max(1, int((budget or 0) / step[name])) for name in makers}
            sides: dict[str, list[Side]] = {name: [] for name in makers}
            for number, seed in enumerate(settings.seed_list, start=1):
                label = f"{name}, {size}, seed {number} of {len(settings.seed_list)}"
                for side in trained(makers, steps, seed, settings.turns, bench.runtime.device, label):
                    sides[side.name].append(side)
            results = {name: Result(sides[name], step[name]) for name in makers}
            table = table_of(f"budget, {name}, {size}", track, results, baselines, bench.runtime)
            given = [GIVEN] if budget is None or settings.step_ms else []
            table.notes[:0] = given + ([] if budget is None else over(results, budget, bench.runtime))
            table.raw |= {"configs": about, "seeds": settings.seed_list, "split": track.prepared.describe()}
            yield table


def recipes(bench: Bench, name: str) -> tuple[Track, dict[str, Make], dict[str, object]]:
    """The track in the tokens of the first recipe, how each recipe is trained on it, and its configuration."""
    settings, makers, about = bench.settings, dict[str, Make](), dict[str, object]()
    ours = recipe_on(name, settings.budget_config, settings.text)
    track = track_of(name, ours)
    makers[OURS], about[OURS] = partial(our_side, OURS, ours, track, runtime_for(ours, bench)), ours.to_dict()
    if settings.against is not None:
        config, other = recipe_on(name, settings.against, settings.text), f"against {Path(settings.against).stem}"
        makers[other] = partial(our_side, other, config, track_of(name, config), runtime_for(config, bench))
        about[other] = config.to_dict()
    if settings.nanogpt is not None:
        makers[NANO_GPT] = partial(nano_gpt_side, settings, track, bench.runtime)
        about[NANO_GPT] = nanogpt.COMMANDS[settings.loss_command].to_dict()
    return track, makers, about


def runtime_for(config: Config, bench: Bench) -> Runtime:
    """How a recipe computes."""
    dtype = config.dtype if bench.settings.dtype == "auto" else bench.settings.dtype
    return choose_runtime(bench.settings.device, dtype, bench.runtime.compile, bench.runtime.threads)


def our_side(name: str, config: Config, track: Track, runtime: Runtime, steps: int, seed: int) -> Side:
    """minitx as `fit` trains it, from a configuration whose schedule is scaled to `steps`."""
    config, prepared = with_steps(config, steps), track.prepared
    training = our_training(shape_of(name, config, prepared.tokenizer.vocab_size), prepared.train, runtime, seed)
    figure = partial(track.figure_of, training.model, prepared.val, runtime)
    return side_of(name, training, figure, 1, partial(learning_rate_factor, config=config.train))


def nano_gpt_side(settings: BenchConfig, track: Track, runtime: Runtime, steps: int, seed: int) -> Side:
    """nanoGPT's command, its schedule scaled to `steps`, on the tokens of the track."""
    command, (train, val, size) = with_steps(nanogpt.COMMANDS[settings.loss_command], steps), renumbered(track.prepared)
    require_window(train, command.model.context_length)
    training = nanogpt.tokens_training(command, str(settings.nanogpt), train, size, runtime, seed)
    figure = partial(track.figure_of, training.model, val, training.runtime)
    return side_of(NANO_GPT, training, figure, 1, partial(nanogpt.learning_rate, train=command.train))


def seconds_of_steps(makers: Mapping[str, Make], bench: Bench) -> dict[str, float]:
    """The seconds of a step of each recipe: those of --step_ms, or else timed; raises UserError if some are missing."""
    given, names = bench.settings.step_milliseconds, ", ".join(makers)
    if not given:
        return least_seconds(makers, bench)
    require(
        len(given) == len(makers), f"step_ms has {len(given)} numbers, but there are {len(makers)} recipes: {names}."
    )
    return {name: milliseconds / 1e3 for name, milliseconds in zip(makers, given, strict=True)}


def least_seconds(makers: Mapping[str, Make], bench: Bench) -> dict[str, float]:
    """The least seconds of a step of each recipe, timed by turns: of the processor for each thread, or of a GPU."""
    device, threads = bench.runtime.device, bench.runtime.threads

    def timed(side: Side) -> float:
        began = time.process_time()
        side.step(0)
        return (time.process_time() - began) / threads

    sides = {name: make(1000, bench.settings.seed) for name, make in makers.items()}
    by_clock = device.type != "cpu"
    steps: dict[str, Candidate] = {
        n: partial(side.step, 0) if by_clock else partial(timed, side) for n, side in sides.items()
    }
    found = alternate(steps, repeats=ROUNDS, seconds=math.inf, device=device, shortest=ROUND, label="seconds of a step")
    return {name: time.minimum for name, time in found.items()}


def trained(
    makers: Mapping[str, Make], steps: Mapping[str, int], seed: int, turns: int, device: torch.device, label: str
) -> list[Side]:
    """A training of every recipe to its end, by turns; each draws from a generator of its own."""
    sides = []
    for name, make in makers.items():
        side = make(steps[name], seed)
        sides.append(dataclasses.replace(side, random=torch.get_rng_state()))
    take_turns(sides, turns, device, label)
    return sides


def table_of(
    title: str, track: Track, results: Mapping[str, Result], baselines: Mapping[str, float], runtime: Runtime
) -> Table:
    """Rows of the recipes and the baselines, and how far the first recipe is from the others."""
    table = Table(title, [row_of(name, result, track.unit, runtime.threads) for name, result in results.items()])
    for name, figure in baselines.items():
        table.rows.append(dict.fromkeys(table.rows[0]) | {"candidate": name, track.unit: f"{figure:.4f}"})
    prepared, (first, *others) = track.prepared, results
    for other in others:
        mine, theirs = results[first].figures, results[other].figures
        difference, p = statistics.fmean(mine) - statistics.fmean(theirs), welch_p(mine, theirs)
        table.notes.append(
            f"{first} − {other}: {difference:+.4f} {track.unit}{'' if math.isnan(p) else f', p = {p:.2g}'}."
        )
    if len(results[first].sides) < CLAIM:
        table.notes.append(f"No claim: that needs {CLAIM} seeds or more.")
    table.notes.append(
        f"Split {prepared.val_fingerprint[:16]}: {prepared.train_bytes:,} bytes train and all {prepared.val_bytes:,} "
        "others validate. Every token is predicted once, from no more context than in training. ± is the standard "
        "deviation over seeds; p is of Welch's t-test, two-sided. Seconds are of training steps, means over seeds."
    )
    figures = {name: result.figures for name, result in results.items()}
    clocks = {n: [{"clock": s.seconds, "cpu": s.cpu_seconds} for s in result.sides] for n, result in results.items()}
    table.raw = {"figures": figures, "baselines": dict(baselines), "seconds": clocks}
    table.raw["steps"] = {name: result.sides[0].steps for name, result in results.items()}
    return table


def over(results: Mapping[str, Result], budget: float, runtime: Runtime) -> list[str]:
    """A sentence for each recipe whose training took more than the budget and its slack."""

    def seconds(side: Side) -> float:
        return side.cpu_seconds / runtime.threads if runtime.device.type == "cpu" else side.seconds

    most = {name: max(map(seconds, result.sides)) for name, result in results.items()}
    return [
        f"No record of {name}: a training took {took:.1f} s, too far over {budget:g} s. Measure again in quiet."
        for name, took in most.items()
        if took > SLACK * budget
    ]


def row_of(name: str, result: Result, unit: str, threads: int) -> Row:
    """The row of a recipe."""
    sides, figures = result.sides, result.figures
    row: Row = {"candidate": name, "parameters": sides[0].parameters, "steps": sides[0].steps}
    row["ms per step, least"] = None if math.isnan(result.seconds_per_step) else 1e3 * result.seconds_per_step
    row["seconds by the clock"] = statistics.fmean(side.seconds for side in sides)
    row["CPU seconds per thread"] = statistics.fmean(side.cpu_seconds for side in sides) / threads
    row["seeds"] = len(sides)
    row[unit] = f"{statistics.fmean(figures):.4f}"
    return row | {"±": f"{statistics.stdev(figures):.4f}" if len(figures) > 1 else None}
