"""One whole training step of every candidate: batch, forward, backward, clipping, update."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW

from minitx.bench.peers import nanogpt, transformers
from minitx.bench.peers.encoder import Encoder
from minitx.bench.shapes import Shape
from minitx.bench.suite import Bench
from minitx.bench.training import TimedTraining, our_training
from minitx.data.batches import Batches
from minitx.data.token_files import Tokens
from minitx.model import Transformer
from minitx.training.loop import training_loss

OURS = "minitx"
OURS_ADAMW = "minitx, Llama's architecture, AdamW"
LLAMA = "transformers Llama, AdamW"
ENCODER = "nn.TransformerEncoder, AdamW"
NANO_GPT = "nanoGPT, its AdamW"
RANDOM_TOKENS = 1 << 20


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
    """The step of a candidate with a new model; every call takes the next batch.

    The learning rate is 0, so that repeating a step changes no weight; the work is the same.
    """
    training = build_training(bench, kind, shape, random_tokens(shape, bench.settings.seed))
    training.set_learning_rate(0.0)
    return training.step


def build_training(bench: Bench, kind: str, shape: Shape, tokens: Tokens) -> TimedTraining:
    """The training of a candidate in this shape."""
    runtime, seed, train = bench.runtime, bench.settings.seed, shape.train
    if kind == OURS_ADAMW:
        shape = dataclasses.replace(shape.as_llama(), train=dataclasses.replace(train, optimizer="adamw"))
    if kind in (OURS, OURS_ADAMW):
        return our_training(shape, tokens, runtime, seed)
    torch.manual_seed(seed)
    if kind == NANO_GPT:
        return nanogpt.build_training(str(bench.settings.nanogpt), shape, tokens, runtime)
    if kind == LLAMA:
        model = transformers.llama(Transformer(shape.as_llama().model, shape.vocab_size).to(runtime.device)).train()
        loss_of = training_loss(lambda inputs: model(input_ids=inputs, use_cache=False).logits)
    else:
        model = Encoder(shape).to(runtime.device)
        loss_of = training_loss(model)
    betas, decay = (train.beta1, train.beta2), train.weight_decay
    optimizer = AdamW(model.parameters(), train.learning_rate, betas, weight_decay=decay, fused=True)
    batches = Batches(tokens, shape.model.context_length, train.batch_size, seed)
    return TimedTraining(shape, model, runtime.compiled(loss_of), [optimizer], batches, runtime)


def random_tokens(shape: Shape, seed: int) -> Tokens:
    """Random tokens, enough for many different batches; their values do not change the cost of a step."""
    count = max(RANDOM_TOKENS, 8 * shape.train.batch_size * shape.model.context_length)
    kind = np.uint16 if shape.vocab_size <= 1 << 16 else np.uint32
    return np.random.default_rng(seed).integers(shape.vocab_size, size=count).astype(kind)
