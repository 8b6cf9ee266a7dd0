"""One whole training step of every candidate: batch, forward, backward, clipping, update.

The learning rate is 0, so that repeating a step changes no weight; the work is the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW

from minitx.bench.peers import nanogpt, transformers
from minitx.bench.peers.encoder import Encoder
from minitx.bench.peers.training import PeerTraining
from minitx.bench.shapes import Shape
from minitx.bench.suite import Bench
from minitx.data.batches import Batches
from minitx.data.token_files import Tokens
from minitx.model import Transformer
from minitx.system.runtime import Runtime
from minitx.training.loop import train_step, training_loss
from minitx.training.optim import build_optimizers, set_learning_rate

OURS = "minitx"
OURS_ADAMW = "minitx, Llama's architecture, AdamW"
LLAMA = "transformers Llama, AdamW"
ENCODER = "nn.TransformerEncoder, AdamW"
NANO_GPT = "nanoGPT, its AdamW"
RANDOM_TOKENS = 1 << 20


class OurTraining:
    """minitx's training as `fit` does it, with everything that one update needs."""

    def __init__(self, shape: Shape, tokens: Tokens, runtime: Runtime, seed: int) -> None:
        torch.manual_seed(seed)
        self.runtime, self.config = runtime, shape.train
        self.model = Transformer(shape.model, shape.vocab_size).to(runtime.device)
        self.parameters = list(self.model.parameters())
        self.optimizers: list[Any] = [*build_optimizers(self.model, self.config)]
        length, batch_size = shape.model.context_length, self.config.batch_size
        self.batches: Any = Batches(tokens, length, batch_size, seed, runtime.device)
        self.loss_of = runtime.compiled(training_loss(self.model))

    def step(self) -> Tensor:
        """Make one update on the next batches; return its loss."""
        return train_step(self.loss_of, self.parameters, self.optimizers, self.batches, self.runtime, self.config)[0]


def kinds(bench: Bench) -> tuple[list[str], list[str]]:
    """The candidates that can be measured here, and a sentence for every other one."""
    names, notes = [OURS, OURS_ADAMW, LLAMA, ENCODER, NANO_GPT], []
    if reason := transformers.why_not():
        names.remove(LLAMA)
        notes.append(reason)
    if bench.settings.nanogpt is None:
        names.remove(NANO_GPT)
        notes.append("nanoGPT is left out: give a checkout of it with --nanogpt PATH.")
    return names, notes


def build(bench: Bench, kind: str, shape: Shape) -> Callable[[], Tensor]:
    """The step of a candidate with a new model; every call takes the next batch."""
    tokens = random_tokens(shape, bench.settings.seed)
    if kind not in (OURS, OURS_ADAMW):
        peer = peer_training(bench, kind, shape, tokens)
        peer.set_learning_rate(0.0)
        return peer.step
    if kind == OURS_ADAMW:
        shape = dataclasses.replace(shape.as_llama(), train=dataclasses.replace(shape.train, optimizer="adamw"))
    ours = OurTraining(shape, tokens, bench.runtime, bench.settings.seed)
    set_learning_rate(ours.optimizers, 0.0)
    return ours.step


def peer_training(bench: Bench, kind: str, shape: Shape, tokens: Tokens) -> PeerTraining:
    """The training of a peer in minitx's shape."""
    runtime, settings, train = bench.runtime, bench.settings, shape.train
    torch.manual_seed(settings.seed)
    if kind == NANO_GPT:
        return nanogpt.build_training(str(settings.nanogpt), shape, tokens, runtime)
    if kind == LLAMA:
        model = transformers.llama(Transformer(shape.as_llama().model, shape.vocab_size).to(runtime.device)).train()
        loss_of = training_loss(lambda inputs: model(input_ids=inputs, use_cache=False).logits)
    else:
        model = Encoder(shape).to(runtime.device)
        loss_of = training_loss(model)
    betas, decay = (train.beta1, train.beta2), train.weight_decay
    optimizer = AdamW(model.parameters(), train.learning_rate, betas, weight_decay=decay, fused=True)
    batches = Batches(tokens, shape.model.context_length, train.batch_size, settings.seed)
    return PeerTraining(model, runtime.compiled(loss_of), optimizer, batches.next, runtime, train)


def random_tokens(shape: Shape, seed: int) -> Tokens:
    """Random tokens, enough for many different batches; their values do not change the cost of a step."""
    count = max(RANDOM_TOKENS, 8 * shape.train.batch_size * shape.model.context_length)
    kind = np.uint16 if shape.vocab_size <= 1 << 16 else np.uint32
    return np.random.default_rng(seed).integers(shape.vocab_size, size=count).astype(kind)
