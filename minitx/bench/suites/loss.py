"""The suite `loss`: seconds of training to a validation loss, minitx's configuration against nanoGPT's command.

Both train in one process by turns, each with an equal share of its steps in a turn, so that a busy minute hits both. A
side's clock runs only in its training steps. Both validate on every character of the last tenth of the text, in windows
side by side.
"""

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from minitx.bench.peers import nanogpt
from minitx.bench.settings import BenchConfig
from minitx.bench.shapes import SHIPPED, config_file, shape_of
from minitx.bench.sides import Side, side_of, take_turns, warmed_up, with_steps
from minitx.bench.suite import Bench, Row, Table
from minitx.bench.training import our_training
from minitx.config import Config, DataConfig
from minitx.config.parsing import load_config
from minitx.data.prepare import Prepared, check_length, prepare
from minitx.system.errors import require
from minitx.system.figures import new_figure, save_picture
from minitx.system.runtime import Runtime, choose_runtime
from minitx.training.loop import evaluate
from minitx.training.optim import learning_rate_factor

EVALUATIONS, OUR_EVALUATIONS = 20, 50
"""Of nanoGPT, and of minitx, whose seconds to the target count; evenly over the steps."""
COLOURS, INK = ("#888888", "#e8710a"), "#808080"
"""Of the curves, and of text and lines; visible on white and on black."""


def run(bench: Bench) -> Iterator[Table]:
    """One table, and the picture of --plot."""
    settings, command, config = bench.settings, nanogpt.COMMANDS[bench.settings.loss_command], config_of(bench.settings)
    if settings.steps is not None:
        our_steps = max(2, round(config.train.steps * settings.steps / command.train.steps))
        config, command = with_steps(config, our_steps), with_steps(command, settings.steps)
    dtype = config.dtype if settings.dtype == "auto" else settings.dtype
    runtime = choose_runtime(settings.device, dtype, bench.runtime.compile, bench.runtime.threads)
    prepared = prepare(config.data, config.tokenizer, config.seed, progress=True)
    check_length(prepared, config.model.context_length)
    makers = (partial(nano_gpt_side, settings, command, runtime), partial(our_side, config, prepared, runtime))
    sides = [warmed_up(make) for make in makers]
    take_turns(sides, settings.turns, runtime.device, "loss")
    table = compare(sides, settings.loss_target)
    table.notes.append(
        "Validation: every character of the last tenth of the text, in windows of the context side by side; in neither "
        f"clock. By turns, {settings.turns} each. minitx trained in {runtime.precision}. The first evaluation at or "
        "below the target counts."
    )
    table.raw |= {"config": config.to_dict(), "command": {"name": settings.loss_command, "steps": command.train.steps}}
    if settings.plot is not None:
        draw(sides, settings.loss_target, settings.plot)
        table.notes.append(f"The curves are in {settings.plot}.")
    yield table


def config_of(settings: BenchConfig) -> Config:
    """minitx's configuration, on the text of --text. Raises UserError if it is not by characters."""
    config = load_config(config_file(settings.loss_config, SHIPPED))
    require(
        config.tokenizer.type == "char",
        f"{settings.loss_config} has a tokenizer of type {config.tokenizer.type}, but the loss of a character is what "
        "is compared: set tokenizer.type to char.",
    )
    data = DataConfig(source=str(settings.text), split_by="position", val_fraction=0.1)
    return dataclasses.replace(config, data=data, seed=settings.seed)


def nano_gpt_side(settings: BenchConfig, command: Config, runtime: Runtime) -> Side:
    """nanoGPT's command."""
    checkout, text = str(settings.nanogpt), str(settings.text)
    training, val = nanogpt.command_training(command, checkout, text, runtime, settings.seed)
    validate = partial(evaluate, training.model, val, 64, runtime)
    return side_of(
        "nanoGPT's command", training, validate, EVALUATIONS, partial(nanogpt.learning_rate, train=command.train)
    )


def our_side(config: Config, prepared: Prepared, runtime: Runtime) -> Side:
    """minitx as `fit` trains it, from its configuration."""
    shape = shape_of("minitx", config, prepared.tokenizer.vocab_size)
    training, val = our_training(shape, prepared.train, runtime, config.seed), np.asarray(prepared.val)
    characters = val[val != prepared.tokenizer.end_of_document]  # nanoGPT has no end-of-document token
    validate = partial(evaluate, training.model, characters, 64, runtime)
    return side_of("minitx", training, validate, OUR_EVALUATIONS, partial(learning_rate_factor, config=config.train))


def compare(sides: list[Side], target: float) -> Table:
    """A row for each side, and the ratio of nanoGPT's whole time to minitx's time to the target."""
    table, (theirs, ours) = Table(f"loss, seconds of training to a validation loss of {target}"), sides
    for side in sides:
        row: Row = {"candidate": side.name, "parameters": side.parameters, "steps": side.steps}
        row |= {"ms per step": 1e3 * side.seconds / side.steps, "seconds to the end": side.seconds}
        row["final val loss"] = f"{side.curve[-1].loss:.4f}"
        row["best val loss"] = f"{min(point.loss for point in side.curve):.4f}"
        point = side.reaches(target)
        table.rows.append({**row, f"seconds to {target}": point.seconds if point else "not reached"})
    names = ("steps", "seconds", "losses")
    curves = {side.name: dict(zip(names, map(list, zip(*side.curve, strict=True)), strict=True)) for side in sides}
    table.raw = {"target": target, "curves": curves, "ratio": None}
    if point := ours.reaches(target):
        table.raw["ratio"] = ratio = theirs.seconds / point.seconds
        table.notes.append(
            f"minitx is at {point.loss:.4f} after {point.seconds:.2f} s (step {point.steps}); nanoGPT's command "
            f"needs {theirs.seconds:.2f} s to its end ({theirs.curve[-1].loss:.4f}): {ratio:.2f} times as long."
        )
    else:
        table.notes.append(f"minitx does not reach {target}.")
    return table


def draw(sides: list[Side], target: float, file: str) -> None:
    """Save the curves over a logarithmic scale of time, in colours for light and dark pages."""
    import matplotlib

    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    style: Any = dict.fromkeys(inked, INK) | dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none")
    with matplotlib.rc_context({**style, "legend.frameon": False}):
        figure = new_figure(8, 4.5)
        axes = figure.add_subplot(xscale="log", xlabel="seconds of training", ylabel="validation loss, nats/character")
        for side, colour in zip(sides, COLOURS, strict=False):
            _, seconds, losses = zip(*side.curve, strict=True)
            axes.plot(seconds, losses, marker="o", markersize=3, color=colour, label=side.name)
            if point := side.reaches(target):
                label, place = f"{point.seconds:.1f} s", (point.seconds, point.loss)
                axes.annotate(label, place, (-6, -14), textcoords="offset points", ha="right", color=colour)
        axes.axhline(target, color=INK, linewidth=0.8, linestyle="--")
        lowest = min(point.loss for side in sides for point in side.curve)
        axes.set_ylim(min(lowest, target) - 0.1, max(target + 0.9, lowest + 0.2))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.legend()
        save_picture(figure, file)
