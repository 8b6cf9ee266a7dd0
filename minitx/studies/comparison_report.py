"""What a comparison measured, as table, picture and JSON, and in TensorBoard's hyperparameter tab."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minitx.run.folder import Run
from minitx.system.figures import new_figure, save_picture
from minitx.system.files import without_nan
from minitx.system.text import markdown_table
from minitx.tensorboard.writer import EventWriter
from minitx.training.report import COMPARED


@dataclass(frozen=True)
class TrialResult:
    """What one trained model reached. Losses are of the last step, in nats per token."""

    variant: str
    seed: int
    folder: str
    parameters: int
    val_loss: float
    val_bits_per_byte: float
    cache_bytes_per_token: float


@dataclass(frozen=True)
class Speeds:
    """Tokens per second in each round of timing one variant."""

    training: list[float]
    """Of whole steps: forward, backward, update."""
    decoding: list[float]
    """Of one sample from the cache, token by token, within one context length."""


@dataclass(frozen=True)
class VariantSummary:
    """One variant over all seeds: means of losses, medians of speeds.

    Spreads are sample standard deviations over seeds or rounds of timing, NaN of a single one.
    """

    variant: str
    seeds: int
    parameters: int
    val_loss: float
    val_loss_spread: float
    difference: float
    """Mean over seeds of the loss minus that of the first variant with the same seed."""
    difference_spread: float
    val_bits_per_byte: float
    tokens_per_second: float
    tokens_per_second_spread: float
    decode_tokens_per_second: float
    decode_tokens_per_second_spread: float
    cache_bytes_per_token: float


def write_comparison(
    folder: Path, plan: dict[str, Any], results: Sequence[TrialResult], speeds: Mapping[str, Speeds], title: str
) -> None:
    """Write comparison.json, comparison.md and comparison.png into `folder`."""
    rows = summarise(results, speeds)
    (folder / "comparison.md").write_text(f"{title}\n\n{comparison_table(rows)}\n", "utf-8")
    draw_comparison(results, speeds, rows, folder / "comparison.png", title)
    content = {
        "plan": plan,
        "rows": [without_nan(vars(row)) for row in rows],
        "runs": [vars(result) for result in results],
        "speeds": {name: vars(speed) for name, speed in speeds.items()},
    }
    Run(folder).write_json("comparison.json", content)


def log_speeds(folder: Path, results: Sequence[TrialResult], speeds: Mapping[str, Speeds], step: int) -> None:
    """Add the speeds, which training does not measure, to the rows of TensorBoard's hyperparameter tab."""
    for result in results:
        speed = speeds[result.variant]
        medians = (statistics.median(speed.training), statistics.median(speed.decoding))
        writer = EventWriter(folder / result.folder, step)
        writer.results(step, dict(zip(COMPARED, medians, strict=True)))
        writer.close()


def summarise(results: Sequence[TrialResult], speeds: Mapping[str, Speeds]) -> list[VariantSummary]:
    """A summary of each variant, in the order of their first results."""
    first = {result.seed: result.val_loss for result in results if result.variant == results[0].variant}
    rows = []
    for name in dict.fromkeys(result.variant for result in results):
        of_variant = [result for result in results if result.variant == name]
        losses = [result.val_loss for result in of_variant]
        differences = [result.val_loss - first[result.seed] for result in of_variant]
        training, decoding = speeds[name].training, speeds[name].decoding
        rows.append(
            VariantSummary(
                variant=name,
                seeds=len(of_variant),
                parameters=of_variant[0].parameters,
                val_loss=statistics.mean(losses),
                val_loss_spread=spread(losses),
                difference=statistics.mean(differences),
                difference_spread=spread(differences),
                val_bits_per_byte=statistics.mean(result.val_bits_per_byte for result in of_variant),
                tokens_per_second=statistics.median(training),
                tokens_per_second_spread=spread(training),
                decode_tokens_per_second=statistics.median(decoding),
                decode_tokens_per_second_spread=spread(decoding),
                cache_bytes_per_token=of_variant[0].cache_bytes_per_token,
            )
        )
    return rows


def comparison_table(rows: Sequence[VariantSummary]) -> str:
    """The summaries as a Markdown table."""
    columns = ["", "parameters", "validation loss", f"less {rows[0].variant}", "bits per byte"]
    columns += ["training tokens/s", "decode tokens/s", "cache bytes/token"]
    cells = [
        (
            row.variant,
            f"{row.parameters:,}",
            with_spread(row.val_loss, row.val_loss_spread, ".3f"),
            with_spread(row.difference, row.difference_spread, "+.3f") if row is not rows[0] else "–",
            f"{row.val_bits_per_byte:.3f}",
            with_spread(row.tokens_per_second, row.tokens_per_second_spread, ",.0f"),
            with_spread(row.decode_tokens_per_second, row.decode_tokens_per_second_spread, ",.0f"),
            f"{row.cache_bytes_per_token:,.0f}",
        )
        for row in rows
    ]
    return markdown_table(columns, cells)


def spread(values: Sequence[float]) -> float:
    """Sample standard deviation; NaN of one value."""
    return statistics.stdev(values) if len(values) > 1 else math.nan


def with_spread(mean: float, deviation: float, form: str) -> str:
    """Such as 4.123 ± 0.004; the mean alone where the deviation is NaN."""
    return f"{mean:{form}}" if math.isnan(deviation) else f"{mean:{form}} ± {deviation:{form.lstrip('+')}}"


def draw_comparison(
    results: Sequence[TrialResult],
    speeds: Mapping[str, Speeds],
    rows: Sequence[VariantSummary],
    file: Path,
    title: str,
) -> None:
    """A panel per quantity: a bar at the mean or median, a dot per run or round of timing, a colour per seed."""
    names, seeds = [row.variant for row in rows], sorted({result.seed for result in results})

    def dots(quantity: str, variant: str) -> list[tuple[float, str]]:
        if quantity in ("training", "decoding"):
            return [(value, "gray") for value in getattr(speeds[variant], quantity)]
        of_variant = [result for result in results if result.variant == variant]
        return [(getattr(result, quantity), f"C{seeds.index(result.seed) % 10}") for result in of_variant]

    panels = [
        ("validation loss (nats per token)", "val_loss", [row.val_loss for row in rows]),
        ("training (tokens per second)", "training", [row.tokens_per_second for row in rows]),
        ("decoding (tokens per second)", "decoding", [row.decode_tokens_per_second for row in rows]),
        ("cache (bytes per token)", "cache_bytes_per_token", [row.cache_bytes_per_token for row in rows]),
    ]
    figure = new_figure(12.4, 3.6)
    figure.suptitle(title, fontsize=11)
    labels = [name.removesuffix(" heads").removesuffix(" head").replace("_", "\n") for name in names]
    for axes, (label, quantity, middles) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        axes.scatter(range(len(names)), middles, color="black", marker="_", s=400, linewidth=1.2)
        for place, name in enumerate(names):
            values, colours = zip(*dots(quantity, name), strict=True)
            axes.scatter([place] * len(values), values, color=colours, s=22, alpha=0.7)
        if quantity == "val_loss":  # losses differ by little
            axes.ticklabel_format(axis="y", useOffset=False)
        else:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter("{x:,.7g}")
        axes.set_title(label, fontsize=10)
        axes.set_xlabel("heads" if names[0].endswith((" head", " heads")) else "", fontsize=9)
        axes.set_xticks(range(len(names)), labels, fontsize=9)
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.tick_params(axis="y", labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    save_picture(figure, file)
