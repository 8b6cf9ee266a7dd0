"""What a comparison measured, as table, picture and JSON, and in TensorBoard's hyperparameter tab."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minitx.run.folder import Run
from minitx.system.figures import new_figure, picture
from minitx.system.files import write_atomically
from minitx.system.text import markdown_table
from minitx.tensorboard.writer import EventWriter

Speeds = Mapping[str, Mapping[str, list[float]]]
"""Variant → "training" (whole steps) and "decoding" (one sample from the cache) → tokens per second in each round."""
Summaries = Mapping[str, Mapping[str, float]]
"""Variant → quantity → its mean or median over seeds or rounds, and its spread: see `summarise`."""

LOGGED_SPEEDS = {"train_tokens_per_second": "training", "decode_tokens_per_second": "decoding"}
"""Result in TensorBoard → name of the speed."""


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


def write_comparison(
    folder: Path, plan: dict[str, Any], results: Sequence[TrialResult], speeds: Speeds, title: str
) -> str:
    """Write comparison.json, comparison.md and comparison.png into `folder`; returns the table under its title."""
    summaries = summarise(results, speeds)
    text = f"{title}\n\n{comparison_table(summaries)}\n"
    write_atomically(folder / "comparison.md", text.encode())
    draw_comparison(results, speeds, folder / "comparison.png", title)
    content = {
        "plan": plan,
        "rows": [{"variant": name, **summary} for name, summary in summaries.items()],
        "runs": [vars(result) for result in results],
        "speeds": speeds,
    }
    Run(folder).write_json("comparison.json", content)
    return text


def log_speeds(folder: Path, results: Sequence[TrialResult], speeds: Speeds, step: int) -> None:
    """Add the speeds, which training does not measure, to the rows of TensorBoard's hyperparameter tab."""
    for result in results:
        speed = speeds[result.variant]
        medians = {name: statistics.median(speed[label]) for name, label in LOGGED_SPEEDS.items()}
        writer = EventWriter(folder / result.folder, step)
        writer.results(step, medians)
        writer.close()


def summarise(results: Sequence[TrialResult], speeds: Speeds) -> Summaries:
    """The means of losses over seeds and the medians of speeds over rounds, in the order of the first results.

    `difference` is the mean over seeds of the loss minus that of the first variant with the same seed. Spreads are
    sample standard deviations, NaN of a single value.
    """
    first = {result.seed: result.val_loss for result in results if result.variant == results[0].variant}
    summaries = {}
    for name in dict.fromkeys(result.variant for result in results):
        of_variant = [result for result in results if result.variant == name]
        losses = [result.val_loss for result in of_variant]
        differences = [result.val_loss - first[result.seed] for result in of_variant]
        training, decoding = speeds[name]["training"], speeds[name]["decoding"]
        summaries[name] = {
            "seeds": len(of_variant),
            "parameters": of_variant[0].parameters,
            "val_loss": statistics.mean(losses),
            "val_loss_spread": spread(losses),
            "difference": statistics.mean(differences),
            "difference_spread": spread(differences),
            "val_bits_per_byte": statistics.mean(result.val_bits_per_byte for result in of_variant),
            "tokens_per_second": statistics.median(training),
            "tokens_per_second_spread": spread(training),
            "decode_tokens_per_second": statistics.median(decoding),
            "decode_tokens_per_second_spread": spread(decoding),
            "cache_bytes_per_token": of_variant[0].cache_bytes_per_token,
        }
    return summaries


def spread(values: Sequence[float]) -> float:
    """Sample standard deviation; NaN of one value."""
    return statistics.stdev(values) if len(values) > 1 else math.nan


def comparison_table(summaries: Summaries) -> str:
    """The summaries as a Markdown table, with spreads as in 4.123 ± 0.004."""

    def cell(summary: Mapping[str, float], quantity: str, form: str) -> str:
        middle, deviation = summary[quantity], summary[f"{quantity}_spread"]
        return f"{middle:{form}}" if math.isnan(deviation) else f"{middle:{form}} ± {deviation:{form.lstrip('+')}}"

    first = next(iter(summaries))
    columns = ["", "parameters", "validation loss", f"less {first}", "bits per byte"]
    columns += ["training tokens/s", "decode tokens/s", "cache bytes/token"]
    rows = [
        (
            name,
            f"{summary['parameters']:,}",
            cell(summary, "val_loss", ".3f"),
            cell(summary, "difference", "+.3f") if name != first else "–",
            f"{summary['val_bits_per_byte']:.3f}",
            cell(summary, "tokens_per_second", ",.0f"),
            cell(summary, "decode_tokens_per_second", ",.0f"),
            f"{summary['cache_bytes_per_token']:,.0f}",
        )
        for name, summary in summaries.items()
    ]
    return markdown_table(columns, rows)


def draw_comparison(results: Sequence[TrialResult], speeds: Speeds, file: Path, title: str) -> None:
    """A panel per quantity: a bar at the mean or median, a dot per run or round of timing, a colour per seed."""
    panels = {
        "val_loss": "validation loss (nats per token)",
        "training": "training (tokens per second)",
        "decoding": "decoding (tokens per second)",
        "cache_bytes_per_token": "cache (bytes per token)",
    }
    figure = new_figure(12.4, 3.6)
    figure.suptitle(title, fontsize=11)
    names = list(dict.fromkeys(result.variant for result in results))
    labels = [name.removesuffix(" heads").removesuffix(" head").replace("_", "\n") for name in names]
    crowded = len(names) > 5 and max(map(len, names)) > 8
    for axes, (quantity, label) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        for place, name in enumerate(names):
            if quantity in speeds[name]:
                values = speeds[name][quantity]
                middle, colours = statistics.median(values), ["gray"] * len(values)
            else:  # in the order of the seeds
                values = [getattr(result, quantity) for result in results if result.variant == name]
                middle, colours = statistics.mean(values), [f"C{i % 10}" for i in range(len(values))]
            axes.scatter(place, middle, color="black", marker="_", s=400, linewidth=1.2)
            axes.scatter([place] * len(values), values, color=colours, s=22, alpha=0.7)
        if quantity == "val_loss":  # losses differ by little
            axes.ticklabel_format(axis="y", useOffset=False)
        else:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter("{x:,.7g}")
        axes.set_title(label, fontsize=10)
        axes.set_xlabel("heads" if names[0].endswith((" head", " heads")) else "", fontsize=9)
        axes.set_xticks(range(len(names)), labels, fontsize=9, rotation=90 if crowded else 0)
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.tick_params(axis="y", labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    write_atomically(file, picture(figure))
