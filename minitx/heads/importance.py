"""How much each head matters: the loss without it, the gradient of its gate, the size of what it writes.

A model and tokens go in, arrays (layer, head) come out. Ablation keeps the residual that enters each layer and
computes again only that layer and those after it: about half the work of a whole pass for every head.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from minitx.attention import HeadAccess, Recorder
from minitx.data.batches import validation_windows
from minitx.data.token_files import Tokens
from minitx.heads.scores import Floats
from minitx.model import Transformer, next_token_loss

Advance = Callable[[int], object]
"""Is called with the number of tokens that are done."""
ROWS = 256
"""Tokens whose logits are computed at a time: few enough that they are still in the cache for the loss."""
T = TypeVar("T")


@dataclass(frozen=True)
class Survey:
    """What a forward and backward pass over a text tells about each head."""

    loss: float
    """Nats per token."""
    gradient: Floats
    """(layer, head): mean over windows of |d loss / d gate|, nats (Michel et al. 2019, equation 2)."""
    contribution: Floats
    """(layer, head): mean length of the vector that the head adds to a token's residual."""
    residual: Floats
    """(layer): mean length of the residual once all heads of the layer have added to it, to compare with."""
    mean_output: Tensor
    """(layer, head, d_head): the mean output of each head over all tokens."""


@dataclass(frozen=True)
class Ablation:
    """The change of the loss, in nats per token, when a head is taken out; each (layer, head)."""

    loss: float
    """Of the whole model."""
    zero: Floats
    """With the head's gate at 0."""
    zero_error: Floats
    """Standard error of `zero` over the windows of the text."""
    mean: Floats
    """With the head's output replaced by its mean over the text, which shows what it does by reacting to its input."""
    mean_error: Floats


def token_losses(model: Transformer, residual: Tensor, targets: Tensor) -> Tensor:
    """(batch, seq): the loss of each target in nats, from the residual (batch, seq, d_model) after the last block."""
    rows = zip(model.final_norm(residual).flatten(0, 1).split(ROWS), targets.flatten().split(ROWS), strict=True)
    losses = [cross_entropy(model.output(row).float(), target, reduction="none") for row, target in rows]
    return torch.cat(losses).view(targets.shape)


def survey(model: Transformer, tokens: Tokens, batch_size: int = 8, advance: Advance | None = None) -> Survey:
    """Forward and backward pass over all of `tokens`, in windows of a context length; the model is left as it was."""

    def compute(inputs: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        recorder = Recorder(want_shares=True)
        nats, slope = _slopes(model, inputs, targets, recorder)
        shares = torch.stack(list(recorder.shares.values())).float()  # (layer, batch, head, seq, d_model)
        outputs = torch.stack(list(recorder.head_outputs.values())).float()  # (layer, batch, head, seq, d_head)
        contribution, lengths = shares.norm(dim=-1).sum(dim=(1, 3)), []
        with torch.no_grad():
            residual = model.embedding(inputs)  # (batch, seq, d_model)
            for layer, share in enumerate(shares):
                lengths.append((residual + share.sum(dim=1)).norm(dim=-1).sum())
                residual = model.residual(residual, first_layer=layer, last_layer=layer)
        sums = (nats, slope.abs().sum(dim=1), contribution, torch.stack(lengths), outputs.sum(dim=(1, 3)))
        return tuple(part.double().cpu() / (len(tokens) - 1) for part in sums)

    parts = zip(*_each_batch(model, tokens, compute, advance, batch_size), strict=True)
    loss, gradient, contribution, residual, mean_output = (torch.stack(part).sum(dim=0) for part in parts)
    return Survey(float(loss), gradient.numpy(), contribution.numpy(), residual.numpy(), mean_output.float())


def gate_gradient(model: Transformer, text: Tensor) -> Floats:
    """(layer, head): `Survey.gradient` on the texts (batch, seq); NaN for pruned heads, and for texts of one token.

    It takes the fused route, gives weights no gradient, draws no random number and leaves the model as it was. So
    training goes on as if this had not been computed.
    """
    config, device = model.config, model.embedding.weight.device
    gradient = np.full((config.n_layer, config.n_head), np.nan)
    inputs, targets = text[:, :-1].to(device), text[:, 1:].to(device)
    if targets.numel() == 0:
        return gradient
    _, slope = _slopes(model, inputs, targets, None)
    for layer, mean in enumerate(slope.abs().sum(dim=1).double().cpu().numpy() / targets.numel()):
        gradient[layer, config.heads_in(layer)] = mean[config.heads_in(layer)]
    return gradient


def _slopes(model: Transformer, inputs: Tensor, targets: Tensor, recorder: Recorder | None) -> tuple[Tensor, Tensor]:
    """The summed loss of all windows in nats, and (layer, batch, head): its slope along each window's gates."""
    config = model.config
    with torch.enable_grad():
        gates = torch.ones(config.n_layer, len(inputs), config.n_head, device=inputs.device, requires_grad=True)
        losses = next_token_loss(model(inputs, heads=HeadAccess(gates, recorder)), targets, "none")  # (batch * seq)
        nats = losses.view(targets.shape).sum(dim=1).sum()
        (slope,) = torch.autograd.grad(nats, gates)
    return nats.detach(), slope


def ablate(
    model: Transformer, tokens: Tokens, mean_output: Tensor, batch_size: int = 8, advance: Advance | None = None
) -> Ablation:
    """The loss on all of `tokens` without each head in turn; `mean_output` (layer, head, d_head) is from `survey`."""
    config, means = model.config, mean_output.to(model.embedding.weight.device)

    @torch.inference_mode()
    def compute(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        without = torch.zeros(config.n_layer, config.n_head, 2, len(inputs), device=inputs.device)
        residual = model.embedding(inputs)  # (batch, seq, d_model)
        for layer in range(config.n_layer):
            for head in range(config.n_head):
                gates = torch.ones(config.n_layer, config.n_head, device=inputs.device)
                gates[layer, head] = 0
                for i, access in enumerate((HeadAccess(gates), HeadAccess(gates, stand_in=means))):
                    changed = model.residual(residual, heads=access, first_layer=layer)
                    without[layer, head, i] = token_losses(model, changed, targets).sum(dim=1)
            residual = model.residual(residual, first_layer=layer, last_layer=layer)
        whole = token_losses(model, residual, targets).sum(dim=1)
        return whole.cpu().double(), without.cpu().double()

    whole, without = zip(*_each_batch(model, tokens, compute, advance, batch_size), strict=True)
    base, count = torch.cat(whole), len(tokens) - 1
    change = torch.cat(without, dim=-1) - base  # (layer, head, 2, window)
    total = (change.sum(dim=-1) / count).numpy()
    spread = change.std(dim=-1) if len(base) > 1 else torch.full(change.shape[:-1], float("nan"))
    error = (spread * len(base) ** 0.5 / count).numpy()
    return Ablation(float(base.sum()) / count, total[..., 0], error[..., 0], total[..., 1], error[..., 1])


def without_output_projection(model: Transformer, tokens: Tokens, advance: Advance | None = None) -> Floats:
    """(layer): the change of the loss, nats per token, with the identity in place of a layer's output projection.

    The heads' outputs then go side by side into the residual, unmixed. NaN where they are not as wide as the residual.
    """
    config = model.config
    is_square = [len(config.heads_in(layer)) * config.d_head == config.d_model for layer in range(config.n_layer)]
    unprojected = {layer: with_identity_projection(model, [layer]) for layer, fits in enumerate(is_square) if fits}

    @torch.inference_mode()
    def compute(inputs: Tensor, targets: Tensor) -> Tensor:
        residual = model.embedding(inputs)  # (batch, seq, d_model)
        changes = torch.full((config.n_layer,), float("nan"), dtype=torch.float64)
        for layer in range(config.n_layer):
            if layer in unprojected:
                changed = unprojected[layer].residual(residual, first_layer=layer)
                changes[layer] = token_losses(model, changed, targets).sum()
            residual = model.residual(residual, first_layer=layer, last_layer=layer)
        return changes - token_losses(model, residual, targets).sum().cpu()

    changes = torch.stack(list(_each_batch(model, tokens, compute, advance)))  # (batch, layer)
    return (changes.sum(dim=0) / (len(tokens) - 1)).numpy()


def with_identity_projection(model: Transformer, layers: Iterable[int]) -> Transformer:
    """The model in eval mode, with the identity as output projection of these layers; it shares all weights."""
    shared: dict[int, Any] = {id(parameter): parameter for parameter in model.parameters()}
    changed = copy.deepcopy(model, shared).eval()  # other modules
    for layer in layers:
        changed.set_submodule(f"blocks.{layer}.attention.output", nn.Identity())
    return changed


def _each_batch(
    model: Transformer, tokens: Tokens, compute: Callable[[Tensor, Tensor], T], advance: Advance | None, size: int = 8
) -> Iterator[T]:
    """Yield `compute(inputs, targets)` for batches of `size` windows in order, in eval mode and on the model's device.

    Threads do not inherit the caller's autocast, so it is entered again. On a CPU every thread computes another batch:
    matrices this small gain less from two threads.
    """
    device, threads = model.embedding.weight.device, torch.get_num_threads()
    batches = validation_windows(tokens, model.config.context_length, size)
    dtype, enabled = torch.get_autocast_dtype(device.type), torch.is_autocast_enabled(device.type)

    def compute_batch(batch: tuple[Tensor, Tensor]) -> T:
        # A cache would keep weights of inference mode for a pass that needs their gradient.
        with torch.autocast(device.type, dtype, enabled, cache_enabled=False):
            result = compute(batch[0].to(device), batch[1].to(device))
        if advance is not None:
            advance(batch[1].numel())
        return result

    if device.type != "cpu" or threads == 1:
        yield from map(compute_batch, batches)
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from pool.map(compute_batch, batches)
    finally:
        torch.set_num_threads(threads)
