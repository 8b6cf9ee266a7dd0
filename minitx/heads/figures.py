"""The figures of every head as pictures."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minitx.heads.table import SHORT, _number
from minitx.system.errors import UserError


def as_picture(found: dict[str, Any], file: Path, title: str) -> None:
    """A PNG or whatever `file` is named after: layers × heads, a panel for each figure.

    White is the level of chance. Full red of a share of the attention is all of it, so a faint panel is a score that
    no head reaches; of entropy and distance it is twice chance, of the correlation 0.5, of losses the largest change.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    panels: list[tuple[str, NDArray[np.float64], float, float]] = []  # caption, values, what is white, reach of colours
    for name in SHORT:
        grid, level = _grid(found, "scores", name), found["chance"][name] or 0.0
        reach = {"entropy": level, "distance": level, "semantic": 0.5}.get(name, 1 - level)
        panels.append((f"{name.replace('_', ' ')}  (chance {_number(found['chance'][name])})", grid, level, reach))
    relative = _grid(found, "contribution") / np.maximum(np.array(found["residual"])[:, None], 1e-9)
    panels.append(("length added / residual's", relative, 0.0, 1.0))
    if "ablation" in found["heads"][0]:
        zero = _grid(found, "ablation", "zero")
        panels.append(("loss without it, change", zero, 0.0, float(np.abs(zero).max())))
        mean = _grid(found, "ablation", "mean")
        panels.append(("loss with it at its mean, change", mean, 0.0, float(np.abs(zero).max())))
    gradient = _grid(found, "gradient")
    panels.append(("gradient of its gate", gradient, 0.0, float(gradient.max())))
    layers, heads = panels[0][1].shape
    columns = 5
    rows = math.ceil(len(panels) / columns)
    panel_width, panel_height = max(2.6, 0.55 * heads + 0.9), max(1.7, 0.38 * layers + 0.9)
    figure = Figure(figsize=(columns * panel_width, rows * panel_height + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, (caption, grid, level, reach) in zip(axes.flat, panels, strict=False):
        reach = max(reach, 1e-9)
        norm = Normalize(level - reach, level + reach)
        axis.imshow(grid, norm=norm, cmap="RdBu_r", aspect="auto")
        axis.set_title(caption, fontsize=9)
        axis.set_xticks(range(heads), [str(head) for head in range(heads)], fontsize=7)
        axis.set_yticks(range(layers), [str(layer) for layer in range(layers)], fontsize=7)
        axis.tick_params(length=0)
        for (layer, head), value in np.ndenumerate(grid):
            dark = abs(norm(value) - 0.5) > 0.35
            axis.text(
                head, layer, _cell(value), ha="center", va="center", fontsize=7, color="white" if dark else "black"
            )
    figure.supxlabel("head", fontsize=9)
    figure.supylabel("layer", fontsize=9)
    figure.savefig(file, dpi=120)


def history_as_picture(lines: list[dict[str, Any]], file: Path, title: str) -> None:
    """How every head came to its scores: a panel per score over steps, a line per head, coloured by layer, and the
    loss on random tokens and on their repetition. `lines` are those of heads.jsonl."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [line["step"] for line in lines]
    names = [name for name, values in lines[0]["scores"].items() if any(v is not None for row in values for v in row)]
    columns = 5
    rows = math.ceil((len(names) + 1) / columns)
    figure = Figure(figsize=(14, 2.5 * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(names) + 1 :]:
        axis.axis("off")
    mark = "." if len(steps) < 30 else None
    for axis, name in zip(axes.flat, names, strict=False):
        values = np.array([line["scores"][name] for line in lines], dtype=np.float64)  # (step, layer, head)
        for layer, head in np.ndindex(values.shape[1:]):
            colour = colormaps["viridis"](layer / max(1, values.shape[1] - 1) * 0.85)
            label = f"layer {layer}" if head == 0 and name == names[0] else None
            axis.plot(steps, values[:, layer, head], color=colour, linewidth=1.2, marker=mark, label=label)
        axis.set_title(name.replace("_", " "), fontsize=9)
        if (by_chance := lines[0]["chance"].get(name)) is not None:
            axis.axhline(by_chance, color="0.4", linestyle="--", linewidth=1)
            axis.set_title(f"{name.replace('_', ' ')}  (dashed: chance)", fontsize=9)
        if name not in ("entropy", "distance", "importance"):
            axis.set_ylim(-0.02, 1.02)
    losses = np.array([line["repeated_loss"] for line in lines], dtype=np.float64)  # (step, half)
    loss_axis = axes.flat[len(names)]
    loss_axis.plot(steps, losses[:, 0], color="0.6", marker=mark, label="random tokens")
    loss_axis.plot(steps, losses[:, 1], color="tab:red", marker=mark, label="their repetition")
    loss_axis.set_title("loss, nats per token", fontsize=9)
    loss_axis.legend(fontsize=7)
    axes.flat[0].legend(fontsize=7)
    for axis in axes.flat[: len(names) + 1]:
        axis.tick_params(labelsize=7)
    figure.supxlabel("step", fontsize=9)
    figure.savefig(file, dpi=120)


def _grid(found: dict[str, Any], *keys: str) -> NDArray[np.float64]:
    """(layer, head) of one figure."""
    shape = [max(entry[axis] for entry in found["heads"]) + 1 for axis in ("layer", "head")]
    grid = np.full(shape, np.nan)
    for entry in found["heads"]:
        value = entry
        for key in keys:
            value = value[key]
        grid[entry["layer"], entry["head"]] = np.nan if value is None else value
    return grid


def _cell(value: float) -> str:
    if math.isnan(value):
        return "–"
    if 0 < abs(value) < 0.0095:
        return f"{value:.0e}".replace("e-0", "e-")
    return _number(value)


def save_picture(draw: Any, name: str) -> None:
    """Draw into the file `name`; raises UserError where that cannot be."""
    try:
        draw(Path(name))
    except OSError as error:
        raise UserError(f"The picture {name} cannot be written ({error.strerror}): name another file.") from error
    print(f"picture in {name}", file=sys.stderr)
