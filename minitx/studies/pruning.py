"""Remove attention heads for good: which ones, a smaller model without them, and what their removal costs.

A head keeps its number when others go: (layer, head) always means the head that training began with. With grouped
queries a key-value head goes when the last query head that it serves does; in latent attention the latent goes with a
layer's last head. A layer may lose all its heads and then adds nothing by attention.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minitx.config.settings import ModelConfig, require
from minitx.data.batches import validation_windows
from minitx.model import Transformer, next_token_loss

Head = tuple[int, int]
"""Layer and head, counted from 0."""
LossWithout = Callable[[Collection[Head]], float]
"""The loss in nats per token with these heads gone."""


def heads_of(config: ModelConfig) -> list[Head]:
    """Every head that a model has."""
    return [(layer, head) for layer in range(config.n_layer) for head in config.heads_in(layer)]


def pruned_config(config: ModelConfig, gone: Iterable[Head]) -> ModelConfig:
    """`config` without the heads `gone`; raises UserError where one is not there, or none would be left."""
    kept = [list(config.heads_in(layer)) for layer in range(config.n_layer)]
    for layer, head in gone:
        require(
            0 <= layer < config.n_layer and head in kept[layer],
            f"There is no head {layer}.{head} to remove: the model has "
            + "; ".join(
                f"in layer {i} {', '.join(f'{i}.{h}' for h in config.heads_in(i)) or 'none'}"
                for i in range(config.n_layer)
            )
            + ".",
        )
        kept[layer].remove(head)
    require(any(kept), "All heads would go, and no token would see another any more: keep at least one.")
    return dataclasses.replace(config, kept_heads=kept)


@torch.no_grad()
def prune(model: Transformer, gone: Iterable[Head]) -> Transformer:
    """A smaller model that computes what `model` does with the gates of the heads `gone` at 0; in `model`'s mode.

    Raises UserError as `pruned_config` does.
    """
    before, after = model.config, pruned_config(model.config, gone)
    with torch.random.fork_rng(devices=[]):
        smaller = Transformer(after, model.vocab_size).to(model.embedding.weight.device)
    weights: dict[str, Tensor] = dict(model.named_parameters())
    for name, parameter in smaller.named_parameters():
        weight = weights[name]
        if name.startswith("blocks.") and ".attention." in name:
            _, layer, _, part, _ = name.split(".")
            weight = slices(weight, part, int(layer), before, after)
        parameter.copy_(weight.reshape(parameter.shape))
    return smaller.train(model.training)


def slices(weight: Tensor, part: str, layer: int, before: ModelConfig, after: ModelConfig) -> Tensor:
    """The rows (of the output projection, the columns) of one attention weight that belong to what `after` keeps."""
    heads = (before.heads_in(layer), after.heads_in(layer))
    kv_heads = (before.kv_heads_in(layer), after.kv_heads_in(layer))
    shared = tuple([0] if any_head else [] for any_head in heads)  # a latent serves all heads there are
    if before.attention == "latent":
        owners = {"compress": shared, "rotary_key": shared, "latent_norm": shared}
        kv_heads = heads
    else:
        owners = {"query_norm": ([0], [0]), "key_norm": ([0], [0])}
    had, keeps = {"query": heads, "key": kv_heads, "value": kv_heads, "output": heads, **owners}[part]
    if had == keeps:
        return weight
    dim = 1 if part == "output" else 0
    blocks = weight.unflatten(dim, (len(had), -1))  # one for each head, in the order of their numbers
    places = torch.tensor([had.index(head) for head in keeps], dtype=torch.long, device=weight.device)
    return blocks.index_select(dim, places).flatten(dim, dim + 1)


# Which heads to remove


@torch.inference_mode()
def gated_loss(
    model: Transformer, tokens: NDArray[np.unsignedinteger], batch_size: int, gone: Collection[Head] = ()
) -> float:
    """Mean loss in nats per token over `tokens` with the gates of the heads `gone` at 0. The model in eval mode."""
    device = model.embedding.weight.device
    gates = torch.ones(model.config.n_layer, model.config.n_head, device=device)
    for layer, head in gone:
        gates[layer, head] = 0
    total = 0.0
    for inputs, targets in validation_windows(tokens, model.config.context_length, batch_size):
        logits = model(inputs.to(device), gates=gates)
        total += float(next_token_loss(logits, targets.to(device), reduction="sum"))
    return total / (len(tokens) - 1)


def head_importance(heads: Sequence[Head], loss_without: LossWithout) -> dict[Head, float]:
    """How much the loss rises without each head, the others being there (Michel et al. 2019, section 3.2)."""
    whole = loss_without([])
    return {head: loss_without([head]) - whole for head in heads}


def greedy_order(heads: Sequence[Head], loss_without: LossWithout, count: int | None = None) -> list[Head]:
    """The first `count` heads to remove (all by default), each the one whose loss hurts least after those before it.

    Measured anew after each removal, for heads stand in for each other: one that could be spared while another was
    there may be needed once that is gone.
    """
    gone: list[Head] = []
    while len(gone) < (len(heads) if count is None else count):
        left = [head for head in heads if head not in gone]
        gone.append(min(left, key=lambda head: loss_without([*gone, head])))
    return gone


def importance_order(heads: Sequence[Head], loss_without: LossWithout) -> list[Head]:
    """All heads, the least important first, measured once."""
    importance = head_importance(heads, loss_without)
    return sorted(heads, key=lambda head: importance[head])


def random_order(heads: Sequence[Head], seed: int) -> list[Head]:
    """All heads in an order that depends on the seed alone."""
    return [heads[i] for i in np.random.default_rng(seed).permutation(len(heads))]


# The curve of loss against heads removed


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
