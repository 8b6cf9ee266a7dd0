"""Loss against heads removed, as table and picture."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from minitx.model import Transformer
    from minitx.run.folder import Run
    from minitx.studies.pruning import Head, LossWithout


class LossWithoutHeads:
    """The loss on `tokens` without some heads, measured once for each set; counted on a terminal."""

    def __init__(self, model: Transformer, tokens: NDArray[np.unsignedinteger], batch_size: int, label: str) -> None:
        from tqdm import tqdm

        self.model, self.tokens, self.batch_size = model, tokens, batch_size
        self.known: dict[frozenset[Head], float] = {}
        self.bar = tqdm(desc=label, unit="loss", leave=False, delay=0.5, disable=not sys.stderr.isatty())

    def __call__(self, gone: Collection[Head]) -> float:
        from minitx.studies.pruning import gated_loss

        key = frozenset(gone)
        if key not in self.known:
            self.known[key] = gated_loss(self.model, self.tokens, self.batch_size, key)
            self.bar.update()
        return self.known[key]


def measured_curve(heads: list[Head], choose: LossWithout, measure: LossWithout, options: Any) -> Curve:
    """Loss after each removal, in greedy, importance and random order."""
    from minitx.studies import pruning

    orders = {
        "greedy": pruning.greedy_order(heads, choose),
        "by importance, measured once": pruning.importance_order(heads, choose),
    }
    randomly = [pruning.random_order(heads, options.seed + i) for i in range(options.random_orders)]

    def losses(order: list[Head]) -> list[float]:
        return [measure(order[:removed]) for removed in range(len(order) + 1)]

    return Curve(
        orders, {name: losses(order) for name, order in orders.items()}, randomly, [losses(order) for order in randomly]
    )


def write_curve(curve: Curve, folder: Path, run: Run) -> None:
    """pruning_curve.md, .png and .json in `folder`, and the table on standard output."""
    from minitx.run.folder import Run

    title = f"{run.path.name}: loss against heads removed"
    table = curve.table()
    (folder / "pruning_curve.md").write_text(f"{title}\n\n{table}\n", "utf-8")
    draw_curve(curve, folder / "pruning_curve.png", title)
    Run(folder).write_json("pruning_curve.json", curve.to_dict())
    print(f"\n{title}\n\n{table}\n\nTable, picture and figures are in {folder}/pruning_curve.md, .png, .json.")


@dataclass(frozen=True)
class Curve:
    """Losses after 0, 1, 2 … heads are gone, by the name of the order; of random orders one for each seed."""

    orders: dict[str, list[Head]]
    losses: dict[str, list[float]]
    random_orders: list[list[Head]]
    random_losses: list[list[float]]

    def table(self) -> str:
        """Heads removed against losses, as Markdown; of the random orders mean and sample standard deviation."""
        names = list(self.losses)
        header = ["heads removed", *names]
        if self.random_losses:
            header.append(f"random (mean ± spread of {len(self.random_losses)} orders)")
        lines = ["| " + " | ".join(header) + " |", "| " + " | ".join("---:" for _ in header) + " |"]
        for removed in range(len(self.losses[names[0]])):
            cells = [str(removed), *(f"{self.losses[name][removed]:.3f}" for name in names)]
            if self.random_losses:
                values = [losses[removed] for losses in self.random_losses]
                cells.append(f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""))
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON; a head is written as in 0.3."""
        named = {name: [f"{layer}.{head}" for layer, head in order] for name, order in self.orders.items()}
        randomly = [[f"{layer}.{head}" for layer, head in order] for order in self.random_orders]
        return {
            "orders": named,
            "losses": self.losses,
            "random_orders": randomly,
            "random_losses": self.random_losses,
        }


def draw_curve(curve: Curve, file: Path, title: str) -> None:
    """The curve as a picture: a line for each order, of random ones the mean in a band from the best to the worst."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    if curve.random_losses:
        values = np.array(curve.random_losses)  # (order, removed)
        removed = np.arange(values.shape[1])
        axes.fill_between(removed, values.min(0), values.max(0), color="tab:gray", alpha=0.25, linewidth=0)
        label = f"random order: mean and range of {len(values)}"
        axes.plot(removed, values.mean(0), color="tab:gray", label=label, marker=".")
    for (name, losses), colour in zip(curve.losses.items(), ("tab:blue", "tab:orange"), strict=False):
        axes.plot(range(len(losses)), losses, color=colour, label=name, marker=".")
    axes.set_xlabel("heads removed")
    axes.set_ylabel("validation loss (nats per token)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(0, None)
    axes.legend(frameon=False)
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)
