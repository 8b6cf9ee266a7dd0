"""Remove attention heads for good: which ones, a smaller model without them, and what their removal costs.

A head keeps its number when others go: (layer, head) always means the head that training began with. With grouped
queries a key-value head goes when the last query head that it serves does; in latent attention the latent goes with a
layer's last head. A layer may lose all its heads and then adds nothing by attention.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minitx.attention import HeadAccess
from minitx.config import ModelConfig
from minitx.data.batches import validation_windows
from minitx.model import Transformer, next_token_loss
from minitx.system.errors import require

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
    shared = ([0], [0])  # one for all heads
    if before.attention == "latent":
        owners = {"compress": shared, "rotary_key": shared, "latent_norm": shared}
        kv_heads = heads
    else:
        owners = {"query_norm": shared, "key_norm": shared}
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
        logits = model(inputs.to(device), heads=HeadAccess(gates))
        total += float(next_token_loss(logits, targets.to(device), reduction="sum"))
    return total / (len(tokens) - 1)


def loss_increase(heads: Sequence[Head], loss_without: LossWithout) -> dict[Head, float]:
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
    importance = loss_increase(heads, loss_without)
    return sorted(heads, key=lambda head: importance[head])


def random_order(heads: Sequence[Head], seed: int) -> list[Head]:
    """All heads in an order that depends on the seed alone."""
    return [heads[i] for i in np.random.default_rng(seed).permutation(len(heads))]


# The curve of loss against heads removed
