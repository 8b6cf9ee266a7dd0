"""One whole training step of each candidate: batch, forward, backward, clipping, update.

Learning rates are 0, so that weights stay what they were however often a step is repeated; the work is the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from minitx.bench.peers import transformers as peers
from minitx.bench.peers.transformers import Loss
from minitx.bench.shapes import Shape
from minitx.config import TrainConfig
from minitx.data.batches import Batches
from minitx.data.token_files import Tokens
from minitx.model import Transformer
from minitx.system.runtime import Runtime
from minitx.training.loop import LossOf, train_step, training_loss
from minitx.training.optim import build_optimizers, set_learning_rate

Step = Callable[[], object]

OURS = "minitx"
OURS_ADAMW = "minitx, Llama's architecture, AdamW"
LLAMA = "transformers Llama, AdamW"
ENCODER = "nn.TransformerEncoder, AdamW"
NANO_GPT = "nanoGPT, its AdamW"
RANDOM_TOKENS = 1 << 20


def kinds(nanogpt: str | None) -> tuple[list[str], list[str]]:
    """The candidates there are here, and a sentence for each that is left out."""
    found, notes = [OURS, OURS_ADAMW, LLAMA, ENCODER, NANO_GPT], []
    if reason := peers.why_no_transformers():
        found.remove(LLAMA)
        notes.append(reason)
    if nanogpt is None:
        found.remove(NANO_GPT)
        notes.append("nanoGPT is left out: give a checkout of it with --nanogpt PATH.")
    return found, notes


def build(kind: str, shape: Shape, runtime: Runtime, nanogpt: str | None = None, seed: int = 0) -> Step:
    """The step of a candidate, with a model of its own; every call trains on the next batch."""
    torch.manual_seed(seed)
    tokens = random_tokens(shape, seed)
    if kind == OURS:
        return our_step(shape, runtime, tokens, seed)[0]
    if kind == OURS_ADAMW:
        llama_shape = shape.as_llama()
        train = dataclasses.replace(shape.train, optimizer="adamw")
        return our_step(dataclasses.replace(llama_shape, train=train), runtime, tokens, seed)[0]
    loss_of, model, optimizer = peer(kind, shape, runtime, nanogpt)
    parameters = list(model.parameters())
    if kind == NANO_GPT:
        draw: Callable[[], tuple[Tensor, Tensor]] = RandomBatches(tokens, shape, runtime.device).next
    else:
        draw = Batches(tokens, shape.model.context_length, shape.train.batch_size, seed).next

    def step() -> Tensor:
        return plain_step(loss_of, parameters, optimizer, draw, runtime, shape.train)

    return step


def our_step(shape: Shape, runtime: Runtime, tokens: Tokens, seed: int) -> tuple[Step, Transformer]:
    """minitx's step as `fit` takes it, and its model."""
    model = Transformer(shape.model, shape.vocab_size).to(runtime.device)
    optimizers = build_optimizers(model, shape.train)
    set_learning_rate(optimizers, 0.0)
    batches = Batches(tokens, shape.model.context_length, shape.train.batch_size, seed, runtime.device)
    loss_of = runtime.compiled(training_loss(model))
    parameters = list(model.parameters())

    def step() -> Tensor:
        return minitx_step(loss_of, parameters, optimizers, batches, runtime, shape.train)

    return step, model


def minitx_step(
    loss_of: LossOf,
    parameters: Sequence[Tensor],
    optimizers: Any,
    batches: Any,
    runtime: Runtime,
    config: TrainConfig,
) -> Tensor:
    """The loss of one of minitx's own training steps; all suites come through here."""
    return train_step(loss_of, parameters, optimizers, batches, runtime, config)[0]


def peer(kind: str, shape: Shape, runtime: Runtime, nanogpt: str | None) -> tuple[Loss, Any, Optimizer]:
    """The loss of a peer as a function of inputs and targets, its model and its optimizer."""
    train = shape.train
    if kind == NANO_GPT:
        model: Any = peers.nano_gpt_of(str(nanogpt), shape).to(runtime.device)
        settings = {
            "weight_decay": train.weight_decay,
            "learning_rate": 0.0,
            "betas": (train.beta1, train.beta2),
        }
        return (
            runtime.compiled(lambda inputs, targets: model(inputs, targets)[1]),
            model,
            peers.nano_gpt_optimizer(model, settings, runtime.device),
        )
    if kind == LLAMA:
        ours = Transformer(shape.as_llama().model, shape.vocab_size).to(runtime.device)
        model = peers.llama(ours)
        model.eval()
        peers.require_equal_logits(ours, lambda tokens: model(tokens).logits, "transformers' Llama")
        model.train()

        def logits(inputs: Tensor) -> Tensor:
            return model(input_ids=inputs, use_cache=False).logits
    else:
        model = logits = peers.Encoder(shape).to(runtime.device)
    optimizer = AdamW(
        model.parameters(), lr=0.0, betas=(train.beta1, train.beta2), weight_decay=train.weight_decay, fused=True
    )
    return runtime.compiled(training_loss(logits)), model, optimizer


def plain_step(
    loss_of: Loss,
    parameters: Sequence[Tensor],
    optimizer: Optimizer,
    draw: Callable[[], tuple[Tensor, Tensor]],
    runtime: Runtime,
    config: TrainConfig,
) -> Tensor:
    """The step as PyTorch's users write it, for the peers; the loss of its last batch."""
    for _ in range(config.grad_accum):
        inputs, targets = (part.to(runtime.device, non_blocking=True) for part in draw())
        with runtime.autocast():
            loss = loss_of(inputs, targets) / config.grad_accum
        loss.backward()
    if config.grad_clip:
        torch.nn.utils.clip_grad_norm_(parameters, config.grad_clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


class RandomBatches:
    """Windows drawn at random with replacement, as nanoGPT's training script draws them."""

    def __init__(self, tokens: Tokens, shape: Shape, device: torch.device) -> None:
        self.tokens, self.length, self.batch = tokens, shape.model.context_length, shape.train.batch_size
        self.device = device

    def next(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets, int64, each (batch, seq)."""
        starts = torch.randint(len(self.tokens) - self.length, (self.batch,))
        both = [
            torch.stack([torch.from_numpy(self.tokens[i : i + self.length].astype(np.int64)) for i in starts + shift])
            for shift in (0, 1)
        ]
        if self.device.type == "cuda":
            both = [part.pin_memory().to(self.device, non_blocking=True) for part in both]
        return both[0], both[1]


def random_tokens(shape: Shape, seed: int) -> Tokens:
    """Tokens without order, enough for many different batches: what they are costs a step nothing."""
    count = max(RANDOM_TOKENS, 8 * shape.train.batch_size * shape.model.context_length)
    kind = np.uint16 if shape.vocab_size <= 1 << 16 else np.uint32
    return np.random.default_rng(seed).integers(shape.vocab_size, size=count).astype(kind)
