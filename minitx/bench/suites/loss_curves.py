"""Validation loss against seconds of training: the curve, when it reaches a target, and its picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

COLOURS = ("#888888", "#e8710a", "#1a73e8", "#188038")
"""Seen on white and on black alike."""
INK = "#808080"
"""Of text, ticks and frame, on a ground that is left transparent."""


class Point(NamedTuple):
    """An evaluation: after how many steps and seconds of training, and the loss found."""

    step: int
    seconds: float
    loss: float


@dataclass
class Curve:
    """The evaluations of one training, in order."""

    steps: list[int]
    seconds: list[float]
    losses: list[float]

    def add(self, step: int, seconds: float, loss: float) -> None:
        """Append an evaluation."""
        self.steps.append(step)
        self.seconds.append(seconds)
        self.losses.append(loss)

    def reaches(self, target: float) -> Point | None:
        """The first evaluation at or below `target`; nothing is read between two of them."""
        points = zip(self.steps, self.seconds, self.losses, strict=True)
        return next((Point(*point) for point in points if point[2] <= target), None)


def draw(curves: Mapping[str, Curve], file: Path, target: float) -> None:
    """A picture of the curves, time on a logarithmic scale, for light and for dark pages."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=150, layout="constrained")
    figure.patch.set_alpha(0.0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0.0)
    for (name, curve), colour in zip(curves.items(), COLOURS, strict=False):
        axes.plot(curve.seconds, curve.losses, marker="o", markersize=3, color=colour, label=name)
        reached = curve.reaches(target)
        if reached is not None:
            axes.annotate(
                f"{reached.seconds:.1f} s",
                (reached.seconds, reached.loss),
                xytext=(-6, -14),
                textcoords="offset points",
                ha="right",
                color=colour,
            )
    axes.axhline(target, color=INK, linewidth=0.8, linestyle="--")
    lowest = min(min(curve.losses) for curve in curves.values())
    axes.set_ylim(min(lowest, target) - 0.1, max(target + 0.9, lowest + 0.2))
    axes.set_xscale("log")
    axes.set_xlabel("seconds of training", color=INK)
    axes.set_ylabel("validation loss, nats per character", color=INK)
    axes.tick_params(colors=INK, which="both")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for spine in axes.spines.values():
        spine.set_color(INK)
    axes.legend(frameon=False, labelcolor=INK)
    figure.savefig(file)
