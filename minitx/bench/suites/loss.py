"""The suite `loss`: seconds of training to a validation loss, minitx's configuration against nanoGPT's command.

Both train in one process by turns, each taking an equal share of its steps in a turn, so that both go through the same
minutes of the machine from its start to its end. The clock of each runs in its own training steps alone. Validation is
the same for both: every character of the last tenth of the text, in windows side by side, each predicted once.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from minitx.bench.peers.nanogpt import COMMANDS, Command, NanoGPT
from minitx.bench.settings import BenchConfig
from minitx.bench.shapes import SHIPPED, Shape, config_file
from minitx.bench.steps import minitx_step
from minitx.bench.suites.loss_curves import Curve, draw
from minitx.bench.tables import Table
from minitx.config import Config
from minitx.config.parsing import load_config
from minitx.data.batches import Batches
from minitx.data.prepare import check_length, prepare
from minitx.model import Transformer
from minitx.system.errors import UserError, require
from minitx.system.runtime import Runtime, choose_runtime
from minitx.system.timing import synchronise
from minitx.training.loop import evaluate, training_loss
from minitx.training.optim import build_optimizers, learning_rate_factor, set_learning_rate

EVALUATIONS = 20
"""Of each side, evenly over its steps; minitx, of which the seconds to the target count, has more."""
OURS_EVALUATIONS = 50
WARM_UP = 3
"""Steps of each side on a model that is thrown away: neither pays for what the process does once."""


@dataclass
class Side:
    """One of the two: what a step and an evaluation are, and how far it is."""

    name: str
    steps: int
    evaluations: int
    step: Callable[[int], object]
    validate: Callable[[], float]
    parameters: int
    curve: Curve = field(default_factory=lambda: Curve([], [], []))
    done: int = 0
    seconds: float = 0.0

    def go_on(self, until: int, device: torch.device) -> None:
        """Train to step `until`, with the evaluations that are due on the way, which the clock leaves out."""
        every = max(1, round(self.steps / self.evaluations))
        while self.done < until:
            stop = min(until, self.done - self.done % every + every)
            began = time.perf_counter()
            for number in range(self.done, stop):
                self.step(number)
            synchronise(device)
            self.seconds += time.perf_counter() - began
            self.done = stop
            if self.done % every == 0 or self.done == self.steps:
                self.curve.add(self.done, self.seconds, self.validate())


def run(settings: BenchConfig, shapes: list[Shape], runtime: Runtime) -> Iterator[Table]:
    """One table, and the picture of --plot."""
    command = COMMANDS[settings.loss_command]
    config = config_of(settings)
    if settings.steps is not None:
        steps = max(2, round(config.train.steps * settings.steps / command.steps))
        warmup = min(config.train.warmup_steps, steps // 2)
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=steps, warmup_steps=warmup))
        command = dataclasses.replace(command, steps=settings.steps, warmup=min(command.warmup, settings.steps // 2))
    own = choose_runtime(
        settings.device, config.dtype if settings.dtype == "auto" else settings.dtype, runtime.compile, runtime.threads
    )
    with tempfile.TemporaryDirectory() as folder:
        sides = [make(folder) for make in makers(settings, config, command, own)]
        take_turns(sides, settings.turns, own.device)
    table = told(settings, sides, own)
    table.raw["config"], table.raw["command"] = config.to_dict(), dataclasses.asdict(command)
    if settings.plot is not None:
        try:
            curves = {side.name: side.curve for side in sides}
            draw(curves, Path(settings.plot), settings.loss_target)
        except OSError as error:
            raise UserError(f"{settings.plot} cannot be written ({error.strerror}): name another file.") from error
        table.notes.append(f"The curves are in {settings.plot}.")
    yield table


def config_of(settings: BenchConfig) -> Config:
    """The configuration of minitx's side, on the text of --text. Raises UserError where it is not by characters."""
    config = load_config(config_file(settings.loss_config, list(SHIPPED)))
    require(
        config.tokenizer.type == "char",
        f"{settings.loss_config} has a tokenizer of type {config.tokenizer.type}, but nanoGPT's command reads "
        "characters, and the loss of a character is what is compared: set tokenizer.type to char.",
    )
    data = dataclasses.replace(config.data, source=str(settings.text), split_by="position", val_fraction=0.1)
    return dataclasses.replace(config, data=data, seed=settings.seed)


def makers(settings: BenchConfig, config: Config, command: Command, runtime: Runtime) -> list[Callable[[str], Side]]:
    """The two sides, both warmed up before the first is made."""

    def warmed(make: Callable[[str], Side]) -> Callable[[str], Side]:
        def warm(folder: str) -> Side:
            throwaway = make(folder)
            for number in range(WARM_UP):
                throwaway.step(number)
            throwaway.validate()
            return make(folder)

        return warm

    return [
        warmed(lambda folder: nano_gpt_side(settings, command, Path(folder), runtime)),
        warmed(lambda folder: our_side(config, runtime)),
    ]


def take_turns(sides: list[Side], turns: int, device: torch.device) -> None:
    """Train all sides to their ends: in each turn an equal share of a side's steps."""
    hidden = not sys.stderr.isatty()
    with tqdm(total=turns, desc="loss", unit="turn", leave=False, disable=hidden, dynamic_ncols=True) as bar:
        for turn in range(1, turns + 1):
            for side in sides:
                side.go_on(round(side.steps * turn / turns), device)
            bar.update()
            bar.set_postfix_str(", ".join(f"{s.name} {s.curve.losses[-1]:.3f}" for s in sides if s.curve.losses))


# minitx


def our_side(config: Config, runtime: Runtime) -> Side:
    """minitx as `fit` trains it, from its configuration."""
    prepared = prepare(config.data, config.tokenizer, config.seed, progress=True)
    check_length(prepared, config.model.context_length)
    torch.manual_seed(config.seed)
    model = Transformer(config.model, prepared.tokenizer.vocab_size).to(runtime.device)
    optimizers = build_optimizers(model, config.train)
    batches = Batches(prepared.train, config.model.context_length, config.train.batch_size, config.seed, runtime.device)
    loss_of = runtime.compiled(training_loss(model))
    parameters = list(model.parameters())
    end = prepared.tokenizer.end_of_document
    characters = np.asarray(prepared.val)[np.asarray(prepared.val) != end]  # nanoGPT has no such token

    def step(number: int) -> Tensor:
        set_learning_rate(optimizers, learning_rate_factor(number, config.train))
        return minitx_step(loss_of, parameters, optimizers, batches, runtime, config.train)

    return Side(
        "minitx",
        config.train.steps,
        OURS_EVALUATIONS,
        step,
        lambda: evaluate(model, characters, 64, runtime),
        sum(parameter.numel() for parameter in model.parameters()),
    )


# nanoGPT


def nano_gpt_side(settings: BenchConfig, command: Command, folder: Path, runtime: Runtime) -> Side:
    """nanoGPT's command."""
    training = NanoGPT(command, str(settings.nanogpt), str(settings.text), folder, runtime, settings.seed)
    parameters = sum(parameter.numel() for parameter in training.parameters)
    return Side("nanoGPT's command", command.steps, EVALUATIONS, training.step, training.validate, parameters)


# Telling


def told(settings: BenchConfig, sides: list[Side], runtime: Runtime) -> Table:
    """The two sides beside each other, and what the one takes of the other's time."""
    theirs, ours = sides
    reached = ours.curve.reaches(settings.loss_target)
    table = Table(
        f"loss, seconds of training to a validation loss of {settings.loss_target}",
        [
            "candidate",
            "parameters",
            "steps",
            "ms per step",
            "seconds to the end",
            "final val loss",
            "best val loss",
            f"seconds to {settings.loss_target}",
        ],
        [
            [
                side.name,
                side.parameters,
                side.steps,
                1e3 * side.seconds / side.steps,
                side.seconds,
                f"{side.curve.losses[-1]:.4f}",
                f"{min(side.curve.losses):.4f}",
                at.seconds if (at := side.curve.reaches(settings.loss_target)) else "not reached",
            ]
            for side in sides
        ],
        raw={
            "target": settings.loss_target,
            "curves": {side.name: dataclasses.asdict(side.curve) for side in sides},
            "ratio": theirs.seconds / reached.seconds if reached else None,
        },
    )
    if reached:
        table.notes.append(
            f"minitx is at {reached.loss:.4f} after {reached.seconds:.2f} s (step {reached.step}); nanoGPT's command "
            f"needs {theirs.seconds:.2f} s to its end ({theirs.curve.losses[-1]:.4f}): "
            f"{theirs.seconds / reached.seconds:.2f} times as long."
        )
    else:
        table.notes.append(f"minitx does not reach {settings.loss_target}.")
    table.notes.append(
        "Validation: every character of the last tenth of the text, in windows of the context side by side; left out "
        f"of both clocks. By turns, {settings.turns} each. minitx trained in "
        f"{str(runtime.dtype).removeprefix('torch.')}. The first evaluation at or below the target counts."
    )
    return table
