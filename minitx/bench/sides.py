"""Trainings side by side: each with its clock and its learning rate, by turns in one process."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from minitx.bench.training import TimedTraining
from minitx.config import Config
from minitx.system.timing import progress_bar, synchronise
from minitx.training.averaging import WeightAverage
from minitx.training.optim import set_learning_rate


class Point(NamedTuple):
    """An evaluation: steps and seconds of training so far, and the loss."""

    steps: int
    seconds: float
    loss: float


@dataclass
class Side:
    """One of the trainings, and how far it is."""

    name: str
    steps: int
    evaluations: int
    step: Callable[[int], object]
    validate: Callable[[], float]
    parameters: int
    curve: list[Point] = field(default_factory=list)
    done: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Of all threads; like `seconds`, in training steps alone. Other programs on the machine hardly add to it."""
    random: Tensor | None = None
    """State of torch's generator, if this side draws from one of its own: then it draws the same beside any other."""

    def train(self, until: int, device: torch.device) -> None:
        """Train to step `until`, with the evaluations that are due on the way; the clock leaves them out."""
        every = max(1, round(self.steps / self.evaluations))
        while self.done < until:
            stop = min(until, self.done - self.done % every + every)
            with self.own_random():
                began, cpu_began = time.perf_counter(), time.process_time()
                for number in range(self.done, stop):
                    self.step(number)
                synchronise(device)
                self.cpu_seconds += time.process_time() - cpu_began
                self.seconds += time.perf_counter() - began
            self.done = stop
            if self.done % every == 0 or self.done == self.steps:
                self.curve.append(Point(self.done, self.seconds, self.validate()))

    @contextlib.contextmanager
    def own_random(self) -> Iterator[None]:
        """Draw from this side's own generator, if it has one."""
        if self.random is None:
            yield
            return
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.random)
            yield
            self.random = torch.get_rng_state()

    def reaches(self, target: float) -> Point | None:
        """The first evaluation at or below `target`; nothing is interpolated."""
        return next((point for point in self.curve if point.loss <= target), None)


def with_steps(config: Config, steps: int) -> Config:
    """`config` with another number of steps, of which at most half warm up."""
    warmup = min(config.train.warmup_steps, steps // 2)
    return dataclasses.replace(config, train=dataclasses.replace(config.train, steps=steps, warmup_steps=warmup))


def warmed_up(make: Callable[[], Side]) -> Side:
    """A new side, after another one has done what a process does only the first time."""
    throwaway = make()
    for number in range(3):
        throwaway.step(number)
    throwaway.validate()
    return make()


def side_of(
    name: str,
    training: TimedTraining,
    validate: Callable[[], float],
    evaluations: int,
    rate: Callable[[int], float],
) -> Side:
    """The side of a training whose learning rate before update n is `rate(n)`, counted from 0."""

    average = WeightAverage(training.parameters, training.shape.train)

    def step(number: int) -> None:
        set_learning_rate(training.optimizers, rate(number))
        training.step()
        average.add(number + 1)

    parameters = sum(parameter.numel() for parameter in training.parameters)
    return Side(name, training.shape.train.steps, evaluations, step, validate, parameters)


def take_turns(sides: list[Side], turns: int, device: torch.device, label: str) -> None:
    """Train all sides to their last step; every turn takes an equal share of a side's steps."""
    with progress_bar(label, turns, "turn") as bar:
        for turn in range(1, turns + 1):
            for side in sides:
                side.train(round(side.steps * turn / turns), device)
            bar.update()
            bar.set_postfix_str(", ".join(f"{s.name} {s.curve[-1].loss:.3f}" for s in sides if s.curve))
