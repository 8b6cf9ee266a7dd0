"""The measurements of every head as pictures: all figures at one step, and the scores over a run."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from minitx.data.tales.tale import KINDS
from minitx.heads.kinds_report import KindMeasurements
from minitx.heads.measure import HeadMeasurements
from minitx.heads.scores import Floats
from minitx.heads.table import COLUMNS, number
from minitx.system.figures import new_figure


def heads_figure(measured: HeadMeasurements, title: str) -> Figure:
    """Layers × heads, with a panel for each figure.

    White is chance. Full red is 1 for a share of attention, twice chance for entropy and distance, 0.5 for the
    correlation, and the largest change for losses.
    """
    panels = list(_panels(measured))
    layers, heads = measured.roles.names.shape
    figure, axes = _grid(len(panels), max(2.6, 0.55 * heads + 0.9), max(1.7, 0.38 * layers + 0.9), title)
    for axis, panel in zip(axes, panels, strict=True):
        _draw(axis, *panel)
    figure.supxlabel("head", fontsize=9)
    figure.supylabel("layer", fontsize=9)
    return figure


def _panels(measured: HeadMeasurements) -> Iterator[tuple[str, Floats, float, float]]:
    """Title, values (layer, head), level of white and reach of every panel; see `_draw`."""
    for name in COLUMNS:
        chance = measured.chance[name]
        level = 0.0 if math.isnan(chance) else chance
        reach = {"entropy": level, "distance": level, "semantic": 0.5}.get(name, 1 - level)
        yield f"{_title(name)}  (chance {number(chance)})", measured.scores[name], level, reach
    survey, ablation = measured.survey, measured.ablation
    yield "length added / residual's", survey.contribution / np.maximum(survey.residual[:, None], 1e-9), 0.0, 1.0
    if ablation is not None:
        largest = float(np.abs(ablation.zero).max())
        yield "loss without it, change", ablation.zero, 0.0, largest
        yield "loss with it at its mean, change", ablation.mean, 0.0, largest
    yield "gradient of its gate", survey.gradient, 0.0, float(survey.gradient.max())
    yield "copying, from -1 to 1", measured.copying, 0.0, 1.0


def kinds_figure(measured: KindMeasurements, title: str) -> Figure:
    """Heads × kinds: attention above control, and the drop of accuracy; a frame where the head has the kind's name.

    White is 0. Full red is 1 for attention, and half of the words for accuracy.
    """
    heads, kinds = measured.heads(), list(KINDS)
    panels = (
        ("attention to the word that decides, above control", measured.looks.excess, 1.0),
        ("accuracy lost with the head held at its mean", measured.uses.mean, 0.5),
    )
    figure, axes = _grid(2, 0.42 * len(kinds) + 0.8, 0.28 * len(heads) + 1.1, title)
    for axis, (name, means, reach) in zip(axes, panels, strict=True):
        values = np.stack([means[kind].value.ravel() for kind in kinds], axis=1)  # (head, kind)
        _draw(axis, name, np.round(values, 2) + 0.0, 0.0, reach)
        axis.set_xticks(range(len(kinds)), kinds, rotation=60, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(len(heads)), [f"{head.layer}.{head.head}" for head in heads])
        for row, kind in ((row, kind) for row, head in enumerate(heads) for kind in head.named):
            axis.add_patch(Rectangle((kinds.index(kind) - 0.5, row - 0.5), 1, 1, fill=False, linewidth=1.4, zorder=3))
    figure.supylabel("layer.head", fontsize=9)
    return figure


def _draw(axis: Axes, title: str, values: Floats, level: float, reach: float) -> None:
    """Draw values (layer, head) as colours, from white at `level` to full red at `level + reach`, and as numbers."""
    reach = max(reach, 1e-9)
    norm = Normalize(level - reach, level + reach)
    axis.imshow(values, norm=norm, cmap="RdBu_r", aspect="auto")
    axis.set_title(title, fontsize=9)
    axis.set(xticks=range(values.shape[1]), yticks=range(values.shape[0]))
    axis.tick_params(length=0)
    for (layer, head), value in np.ndenumerate(values):
        colour = "white" if abs(norm(value) - 0.5) > 0.35 else "black"
        cell = f"{value:.3f}" if 0 < abs(value) < 0.0095 else number(value)
        axis.text(head, layer, cell, ha="center", va="center", fontsize=7, color=colour)


def _title(name: str) -> str:
    """What a reader calls a score."""
    return "meaning" if name == "semantic" else name.replace("_", " ")


def history_figure(lines: Sequence[dict[str, Any]], title: str) -> Figure:
    """The scores of every head over the steps of a run; `lines` are those of heads.jsonl.

    A panel per score, with a line per head coloured by layer, and one for the loss on random tokens and their
    repetition.
    """
    steps = [line["step"] for line in lines]
    names = [name for name, values in lines[0]["scores"].items() if any(v is not None for row in values for v in row)]
    figure, (*score_axes, loss_axis) = _grid(len(names) + 1, 2.8, 2.5, title)
    mark = "." if len(steps) < 30 else None
    for axis, name in zip(score_axes, names, strict=True):
        values = np.array([line["scores"][name] for line in lines], dtype=np.float64)  # (step, layer, head)
        for layer, head in np.ndindex(values.shape[1:]):
            colour = colormaps["viridis"](layer / max(1, values.shape[1] - 1) * 0.85)
            label = f"layer {layer}" if head == 0 else None
            axis.plot(steps, values[:, layer, head], color=colour, linewidth=1.2, marker=mark, label=label)
        axis.set_title(_title(name), fontsize=9)
        if (by_chance := lines[0]["chance"].get(name)) is not None:
            axis.axhline(by_chance, color="0.4", linestyle="--", linewidth=1, label="chance")
        if name not in ("entropy", "distance", "importance"):
            axis.set_ylim(-0.02, 1.02)
    losses = np.array([line["repeated_loss"] for line in lines], dtype=np.float64)  # (step, half)
    loss_axis.plot(steps, losses[:, 0], color="0.6", marker=mark, label="random tokens")
    loss_axis.plot(steps, losses[:, 1], color="tab:red", marker=mark, label="their repetition")
    loss_axis.set_title("loss, nats per token", fontsize=9)
    for axis in (score_axes[0], loss_axis):
        axis.legend(fontsize=7)
    figure.supxlabel("step", fontsize=9)
    return figure


def _grid(count: int, width: float, height: float, title: str) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels of this size in inches, in even rows of at most 5."""
    rows = math.ceil(count / 5)
    columns = math.ceil(count / rows)
    figure = new_figure(columns * width, rows * height + 0.5)
    figure.suptitle(title, fontsize=11)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        axis.tick_params(labelsize=7)
    for axis in axes[count:]:
        axis.axis("off")
    return figure, axes[:count]
