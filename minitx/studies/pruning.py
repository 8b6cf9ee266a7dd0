"""Remove attention heads for good: a smaller model without them, and orders to remove them in.

A head keeps its number when others go: (layer, head) always means the head that training began with. With grouped
queries a key-value head goes with the last query head that it serves. In latent attention the latent goes with a
layer's last head. A layer may lose all its heads: attention then adds nothing to the residual in that layer.
"""

import contextlib
import dataclasses
import functools
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from minitx.attention import HeadAccess
from minitx.config import ModelConfig
from minitx.model import Transformer
from minitx.system.errors import require
from minitx.system.runtime import Runtime
from minitx.training.loop import evaluate

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
    kept = [list(config.heads_in(layer)) for layer in range(config.n_layer)]
    present = "; ".join(
        f"in layer {layer} {', '.join(head_names((layer, head) for head in heads)) or 'none'}"
        for layer, heads in enumerate(kept)
    )
    for layer, head in gone:
        is_present = layer in range(config.n_layer) and head in kept[layer]
        require(is_present, f"There is no head {layer}.{head} to remove: the model has {present}.")
        kept[layer].remove(head)
    require(any(kept), "All heads would go, and no token would see another any more: keep at least one.")
    return dataclasses.replace(config, kept_heads=kept)


@torch.no_grad()
def prune(model: Transformer, gone: Iterable[Head]) -> Transformer:
    """The model without the heads `gone`, in the mode of `model`: it computes what `model` does with their gates at 0.

    Raises UserError as `pruned_config` does.
    """
    configs = (model.config, pruned_config(model.config, gone))
    with torch.random.fork_rng(devices=[]):
        smaller = Transformer(configs[1], model.vocab_size).to(model.embedding.weight.device)
    for name, parameter in smaller.named_parameters():
        weight = model.get_parameter(name)
        match = re.fullmatch(r"blocks\.(\d+)\.attention\.(query|key|value|output)\.weight", name)
        if match:  # heads share the other parameters
            layer, part = int(match[1]), match[2]
            before, after = (
                config.heads_in(layer) if part in ("query", "output") else config.kv_heads_in(layer)
                for config in configs
            )
            dim = 1 if part == "output" else 0
            blocks = weight.unflatten(dim, (len(before), -1))  # one block per head, in the order of their numbers
            places = torch.tensor([before.index(head) for head in after], device=weight.device)
            weight = blocks.index_select(dim, places).flatten(dim, dim + 1)
        parameter.copy_(weight)
    return smaller.train(model.training)


def choose_heads(
    heads: Sequence[Head], keep_fraction: float, by: str, seed: int, loss_without: LossWithout
) -> list[Head]:
    """The heads to remove so that `keep_fraction` of them stay, by greedy, importance or random order."""
    count = len(heads) - max(1, round(keep_fraction * len(heads)))
    require(len(heads) > 1, "This model has a single head, which must stay: nothing can be removed.")
    fault = f"--keep_fraction {keep_fraction} keeps all {len(heads)} heads: give a smaller share."
    require(count > 0, fault)
    if by == "greedy":
        return greedy_order(heads, loss_without, count)
    order = random_order(heads, seed) if by == "random" else importance_order(heads, loss_without)
    return order[:count]


def greedy_order(heads: Sequence[Head], loss_without: LossWithout, count: int) -> list[Head]:
    """The first `count` heads to remove: always the one without which the loss is lowest.

    The losses are measured again after each removal, for two heads may do the same: either can go, but not both.
    """
    gone: list[Head] = []
    while len(gone) < count:
        left = [head for head in heads if head not in gone]
        gone.append(min(left, key=lambda head: loss_without([*gone, head])))
    return gone


def importance_order(heads: Sequence[Head], loss_without: LossWithout) -> list[Head]:
    """All heads, by the loss without that head alone, the lowest first (Michel et al. 2019, section 3.2)."""
    return sorted(heads, key=lambda head: loss_without([head]))


def random_order(heads: Sequence[Head], seed: int) -> list[Head]:
    """All heads in an order that depends on the seed alone."""
    return [heads[i] for i in np.random.default_rng(seed).permutation(len(heads))]


@contextlib.contextmanager
def removal_loss(
    model: Transformer, tokens: NDArray[np.unsignedinteger], batch_size: int, runtime: Runtime, label: str
) -> Iterator[LossWithout]:
    """The loss of `model` on `tokens` without some heads, in float32, measured once per set of heads.

    A terminal shows `label` and the number of losses measured.
    """
    exact = dataclasses.replace(runtime, dtype=torch.float32)
    form, hidden = "{desc}: {n} losses measured", not sys.stderr.isatty()
    with tqdm(desc=label, bar_format=form, leave=False, delay=0.5, disable=hidden) as bar:

        @functools.cache
        def measured(gone: frozenset[Head]) -> float:
            bar.update()
            return evaluate(model, tokens, batch_size, exact, heads=access_without(model, gone))

        yield lambda gone: measured(frozenset(gone))


def access_without(model: Transformer, gone: Collection[Head]) -> HeadAccess:
    """Access to the heads of `model` with the gates of the heads `gone` at 0."""
    gates = torch.ones(model.config.n_layer, model.config.n_head, device=model.embedding.weight.device)
    for head in gone:
        gates[head] = 0
    return HeadAccess(gates)
