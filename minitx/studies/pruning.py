"""Remove attention heads for good: a smaller model without them, and orders to remove them in.

A head keeps its number when others go: (layer, head) always means the head that training began with. With grouped
queries a key-value head goes with the last query head that it serves. In latent attention the latent goes with a
layer's last head. A layer may lose all its heads: attention then adds nothing there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from minitx.attention import HeadAccess
from minitx.config import ModelConfig
from minitx.data.batches import validation_windows
from minitx.model import Transformer, next_token_loss
from minitx.system.errors import require

Head = tuple[int, int]
"""Layer and head, counted from 0."""
LossWithout = Callable[[Collection[Head]], float]
"""The loss in nats per token without these heads."""


def heads_of(config: ModelConfig) -> list[Head]:
    """Every head that a model has."""
    return [(layer, head) for layer in range(config.n_layer) for head in config.heads_in(layer)]


def head_names(heads: Iterable[Head]) -> list[str]:
    """Heads as the command line writes them: layer.head."""
    return [f"{layer}.{head}" for layer, head in heads]


def pruned_config(config: ModelConfig, gone: Iterable[Head]) -> ModelConfig:
    """`config` without the heads `gone`; raises UserError where the model lacks one of them, or would lose all."""
    left, by_layer = heads_of(config), [config.heads_in(layer) for layer in range(config.n_layer)]
    present = "; ".join(
        f"in layer {layer} {', '.join(head_names((layer, head) for head in heads)) or 'none'}"
        for layer, heads in enumerate(by_layer)
    )
    for layer, head in gone:
        require((layer, head) in left, f"There is no head {layer}.{head} to remove: the model has {present}.")
        left.remove((layer, head))
    require(bool(left), "All heads would go, and no token would see another any more: keep at least one.")
    kept = [[head for head in heads if (layer, head) in left] for layer, heads in enumerate(by_layer)]
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
        parameter.copy_(weight)
    return smaller.train(model.training)


def slices(weight: Tensor, part: str, layer: int, before: ModelConfig, after: ModelConfig) -> Tensor:
    """The rows of an attention weight (columns, of the output projection) that belong to the heads of `after`."""
    if part in ("query", "output"):
        had, keeps = before.heads_in(layer), after.heads_in(layer)
    elif part in ("key", "value"):
        had, keeps = before.kv_heads_in(layer), after.kv_heads_in(layer)
    else:  # the heads of a layer share it
        return weight
    if had == keeps:
        return weight
    dim = 1 if part == "output" else 0
    blocks = weight.unflatten(dim, (len(had), -1))  # one block per head, in the order of their numbers
    places = torch.tensor([had.index(head) for head in keeps], dtype=torch.long, device=weight.device)
    return blocks.index_select(dim, places).flatten(dim, dim + 1)


# Which heads to remove


def choose_heads(heads: Sequence[Head], count: int, by: str, seed: int, loss_without: LossWithout) -> list[Head]:
    """The first `count` heads to remove by greedy, importance or random order."""
    if by == "greedy":
        return greedy_order(heads, loss_without, count)
    order = random_order(heads, seed) if by == "random" else importance_order(heads, loss_without)
    return order[:count]


def greedy_order(heads: Sequence[Head], loss_without: LossWithout, count: int | None = None) -> list[Head]:
    """The first `count` heads to remove (all by default): always the one whose loss hurts least.

    Measured anew after each removal, for heads stand in for each other: two may each be spared, but not both.
    """
    gone: list[Head] = []
    while len(gone) < (len(heads) if count is None else count):
        left = [head for head in heads if head not in gone]
        gone.append(min(left, key=lambda head: loss_without([*gone, head])))
    return gone


def importance_order(heads: Sequence[Head], loss_without: LossWithout) -> list[Head]:
    """All heads, the least important first, measured once."""
    importance = loss_increase(heads, loss_without)
    return sorted(heads, key=lambda head: importance[head])


def random_order(heads: Sequence[Head], seed: int) -> list[Head]:
    """All heads in an order that depends on the seed alone."""
    return [heads[i] for i in np.random.default_rng(seed).permutation(len(heads))]


# What their removal costs


def loss_increase(heads: Sequence[Head], loss_without: LossWithout) -> dict[Head, float]:
    """How much the loss rises when one head is removed, for every head (Michel et al. 2019, section 3.2)."""
    whole = loss_without([])
    return {head: loss_without([head]) - whole for head in heads}


@contextlib.contextmanager
def removal_loss(
    model: Transformer, tokens: NDArray[np.unsignedinteger], batch_size: int, label: str
) -> Iterator[LossWithout]:
    """The loss of `model` on `tokens` without some heads, measured once per set. A terminal shows `label` and a count.

    The model must be in eval mode.
    """
    known: dict[frozenset[Head], float] = {}
    form, hidden = "{desc}: {n} losses measured", not sys.stderr.isatty()
    with tqdm(desc=label, bar_format=form, leave=False, delay=0.5, disable=hidden) as bar:

        def loss_without(gone: Collection[Head]) -> float:
            key = frozenset(gone)
            if key not in known:
                known[key] = gated_loss(model, tokens, batch_size, key)
                bar.update()
            return known[key]

        yield loss_without


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
        logits = model(inputs.to(device), heads=HeadAccess(gates))
        total += float(next_token_loss(logits, targets.to(device), reduction="sum"))
    return total / (len(tokens) - 1)
