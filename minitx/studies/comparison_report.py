"""What a comparison measured, as table and picture."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minitx.run.folder import Run
from minitx.tensorboard.writer import EventWriter
from minitx.training.report import COMPARED


@dataclass(frozen=True)
class Measured:
    """What one trained model came to. Losses are of the last step, in nats per token."""

    variant: str
    seed: int
    folder: str
    parameters: int
    val_loss: float
    val_bits_per_byte: float
    cache_bytes_per_token: float
    """Measured on the buffers of a cache."""


@dataclass(frozen=True)
class Speed:
    """Tokens per second in each round of timing one variant."""

    training: list[float]
    """Of whole steps: forward, backward, update."""
    decoding: list[float]
    """Of one sample from the cache, token by token, within one context length."""


@dataclass(frozen=True)
class Row:
    """One variant over all seeds: means of losses and medians of speeds, with sample standard deviations over seeds or
    rounds of timing (NaN for one seed)."""

    variant: str
    seeds: int
    parameters: int
    val_loss: float
    val_loss_spread: float
    difference: float
    """Mean over seeds of the loss less that of the first variant with the same seed."""
    difference_spread: float
    val_bits_per_byte: float
    tokens_per_second: float
    tokens_per_second_spread: float
    decode_tokens_per_second: float
    decode_tokens_per_second_spread: float
    cache_bytes_per_token: float


def summarise(measured: Sequence[Measured], speeds: Mapping[str, Speed]) -> list[Row]:
    """A row for each variant, in the order in which they first come."""
    first = {each.seed: each.val_loss for each in measured if each.variant == measured[0].variant}
    rows = []
    for name in dict.fromkeys(each.variant for each in measured):
        own = [each for each in measured if each.variant == name]
        differences = [each.val_loss - first[each.seed] for each in own]
        speed = speeds[name]
        losses = [each.val_loss for each in own]
        rows.append(
            Row(
                variant=name,
                seeds=len(own),
                parameters=own[0].parameters,
                val_loss=statistics.mean(losses),
                val_loss_spread=spread(losses),
                difference=statistics.mean(differences),
                difference_spread=spread(differences),
                val_bits_per_byte=statistics.mean(each.val_bits_per_byte for each in own),
                tokens_per_second=statistics.median(speed.training),
                tokens_per_second_spread=spread(speed.training),
                decode_tokens_per_second=statistics.median(speed.decoding),
                decode_tokens_per_second_spread=spread(speed.decoding),
                cache_bytes_per_token=own[0].cache_bytes_per_token,
            )
        )
    return rows


def spread(values: Sequence[float]) -> float:
    """Sample standard deviation; NaN of one value."""
    return statistics.stdev(values) if len(values) > 1 else math.nan


def with_spread(mean: float, deviation: float, form: str) -> str:
    """Such as 4.123 ± 0.004, or the mean alone where there is one value."""
    return f"{mean:{form}}" if math.isnan(deviation) else f"{mean:{form}} ± {deviation:{form.lstrip('+')}}"


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, its columns aligned for the terminal too."""
    header = (
        "",
        "parameters",
        "validation loss",
        f"less {rows[0].variant}",
        "bits per byte",
        "training tokens/s",
        "decode tokens/s",
        "cache bytes/token",
    )
    cells = [header]
    for i, row in enumerate(rows):
        cells.append(
            (
                row.variant,
                f"{row.parameters:,}",
                with_spread(row.val_loss, row.val_loss_spread, ".3f"),
                with_spread(row.difference, row.difference_spread, "+.3f") if i else "–",
                f"{row.val_bits_per_byte:.3f}",
                with_spread(row.tokens_per_second, row.tokens_per_second_spread, ",.0f"),
                with_spread(row.decode_tokens_per_second, row.decode_tokens_per_second_spread, ",.0f"),
                f"{row.cache_bytes_per_token:,.0f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(pairs)) + " |"
        for pairs in (list(zip(line, widths, strict=True)) for line in cells)
    ]
    rule = "| " + " | ".join("-" * (width - 1) + (":" if i else "-") for i, width in enumerate(widths)) + " |"
    return "\n".join([lines[0], rule, *lines[1:]])


def draw(
    measured: Sequence[Measured], speeds: Mapping[str, Speed], rows: Sequence[Row], file: Path, title: str
) -> None:
    """One panel for each thing measured: a dot for each run in the colour of its seed, or a grey one for each round of
    timing, and a bar at the mean or median."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = {
        "val_loss": "validation loss (nats per token)",
        "tokens_per_second": "training (tokens per second)",
        "decode_tokens_per_second": "decoding (tokens per second)",
        "cache_bytes_per_token": "cache (bytes per token)",
    }
    names, seeds = [row.variant for row in rows], sorted({each.seed for each in measured})
    dots_of = {
        quantity: [(each.variant, getattr(each, quantity), f"C{seeds.index(each.seed) % 10}") for each in measured]
        for quantity in ("val_loss", "cache_bytes_per_token")
    }
    for quantity, part in (("tokens_per_second", "training"), ("decode_tokens_per_second", "decoding")):
        dots_of[quantity] = [(name, value, "gray") for name in names for value in getattr(speeds[name], part)]
    figure = Figure(figsize=(3.1 * len(panels), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (quantity, label) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        means = [getattr(row, quantity) for row in rows]
        dots = dots_of[quantity]
        values = [value for _, value, _ in dots]
        axes.scatter(range(len(names)), means, color="black", marker="_", s=400, linewidth=1.2)
        axes.scatter(
            [names.index(name) for name, _, _ in dots], values, color=[colour for _, _, colour in dots], s=22, alpha=0.7
        )
        axes.set_title(label, fontsize=10)
        axes.set_xticks(
            range(len(names)),
            [name.removesuffix(" heads").removesuffix(" head").replace("_", "\n") for name in names],
            fontsize=9,
        )
        axes.set_xlim(-0.6, len(names) - 0.4)
        if quantity != "val_loss":  # losses differ by little, the others are amounts
            axes.set_ylim(0, 1.1 * max(values))
        if all(name.endswith(("head", "heads")) for name in names):
            axes.set_xlabel("heads", fontsize=9)
        axes.tick_params(axis="y", labelsize=8)
        axes.yaxis.set_major_formatter("{x:,.0f}" if max(values) >= 100 else "{x:g}")
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=11)
    figure.savefig(file, dpi=110)


def tell_board(folder: Path, measured: Sequence[Measured], rows: Sequence[Row], steps: int) -> None:
    """Add to each run's row in TensorBoard's hyperparameter tab what its training did not measure."""
    row_of = {row.variant: row for row in rows}
    for each in measured:
        row = row_of[each.variant]
        board = EventWriter(folder / each.folder, steps + 1)
        board.results(
            steps + 1, dict(zip(COMPARED, (row.tokens_per_second, row.decode_tokens_per_second), strict=True))
        )
        board.close()


def write(
    folder: Path, plan: dict[str, Any], measured: Sequence[Measured], speeds: Mapping[str, Speed], title: str
) -> None:
    """comparison.json, comparison.md and comparison.png in `folder`."""
    rows = summarise(measured, speeds)
    (folder / "comparison.md").write_text(f"{title}\n\n{table(rows)}\n", "utf-8")
    draw(measured, speeds, rows, folder / "comparison.png", title)
    content = {
        "plan": plan,
        "rows": [{k: None if v != v else v for k, v in vars(row).items()} for row in rows],
        "runs": [vars(each) for each in measured],
        "speeds": {name: vars(speed) for name, speed in speeds.items()},
    }
    Run(folder).write_json("comparison.json", content)
