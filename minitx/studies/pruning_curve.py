"""The loss against the number of heads removed: measured in several orders, as table, picture and JSON."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minitx.run.folder import Run
from minitx.studies.pruning import Head, LossWithout, greedy_order, head_names, importance_order, random_order
from minitx.system.figures import new_figure, picture
from minitx.system.files import write_atomically
from minitx.system.text import markdown_table


@dataclass(frozen=True)
class Curve:
    """Orders to remove heads in, and the losses after 0, 1, 2 … removals, in nats per token.

    By name of the order, but for random orders, of which the curve shows mean and spread.
    """

    orders: dict[str, list[str]]
    losses: dict[str, list[float]]
    random_orders: list[list[str]]
    random_losses: list[list[float]]

    def text(self, run_name: str) -> str:
        """The table under its title."""
        return f"{run_name}: loss against heads removed\n\n{self.table()}"

    def table(self) -> str:
        """Heads removed against losses, as Markdown; of random orders the mean and sample standard deviation."""
        cells = {name: [f"{loss:.3f}" for loss in losses] for name, losses in self.losses.items()}
        if self.random_losses:
            several = len(self.random_losses) > 1
            cells[f"random (mean ± spread of {len(self.random_losses)} orders)" if several else "random"] = [
                f"{statistics.mean(losses):.3f}" + (f" ± {statistics.stdev(losses):.3f}" if several else "")
                for losses in zip(*self.random_losses, strict=True)
            ]
        rows = [[removed, *row] for removed, row in enumerate(zip(*cells.values(), strict=True))]
        return markdown_table(["heads removed", *cells], rows, left=[False] * (1 + len(cells)))


def measure_curve(
    heads: Sequence[Head], choosing_loss: LossWithout, loss_without: LossWithout, seeds: Sequence[int]
) -> Curve:
    """The loss after each removal in greedy order, by importance, and in a random order per seed.

    Orders come from `choosing_loss`, the losses of the curve from `loss_without`.
    """
    orders = {
        "greedy": greedy_order(heads, choosing_loss, len(heads)),
        "by importance, measured once": importance_order(heads, choosing_loss),
    }
    random_orders = [random_order(heads, seed) for seed in seeds]

    def losses(order: list[Head]) -> list[float]:
        return [loss_without(order[:removed]) for removed in range(len(order) + 1)]

    return Curve(
        {name: head_names(order) for name, order in orders.items()},
        {name: losses(order) for name, order in orders.items()},
        [*map(head_names, random_orders)],
        [*map(losses, random_orders)],
    )


def write_curve(curve: Curve, folder: Path, run_name: str) -> None:
    """Write pruning_curve.md, .png and .json into `folder`."""
    text = curve.text(run_name)
    write_atomically(folder / "pruning_curve.md", f"{text}\n".encode())
    draw_curve(curve, folder / "pruning_curve.png", text.partition("\n")[0])
    Run(folder).write_json("pruning_curve.json", vars(curve))


def draw_curve(curve: Curve, file: Path, title: str) -> None:
    """A line per order; of random orders the mean, in a band from the best to the worst."""
    figure = new_figure(7, 4.2)
    axes = figure.subplots()
    if curve.random_losses:
        values = np.array(curve.random_losses)  # (order, heads removed)
        removed = np.arange(values.shape[1])
        axes.fill_between(removed, values.min(0), values.max(0), color="tab:gray", alpha=0.25, linewidth=0)
        label = f"random order: mean and range of {len(values)}" if len(values) > 1 else "random order"
        axes.plot(removed, values.mean(0), color="tab:gray", label=label, marker=".")
    for (name, losses), colour in zip(curve.losses.items(), ("tab:blue", "tab:orange"), strict=False):
        axes.plot(range(len(losses)), losses, color=colour, label=name, marker=".")
    axes.set_xlabel("heads removed")
    axes.set_ylabel("validation loss (nats per token)")
    axes.locator_params(axis="x", integer=True)
    axes.set_xlim(0, None)
    axes.legend(frameon=False)
    axes.set_title(title, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    write_atomically(file, picture(figure))
