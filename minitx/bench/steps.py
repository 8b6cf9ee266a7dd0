"""One whole training step of every candidate: batch, forward, backward, clipping, update."""

import dataclasses
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import AdamW

from minitx.bench.peers import nanogpt, transformers
from minitx.bench.shapes import Shape
from minitx.bench.suite import Bench
from minitx.bench.training import TimedTraining, our_training
from minitx.data.batches import Batches
from minitx.data.token_files import Tokens
from minitx.model import Transformer
from minitx.training.optim import set_learning_rate

OURS = "minitx"
OURS_ADAMW = "minitx, Llama's architecture, AdamW"
LLAMA = "transformers Llama, AdamW"
NANO_GPT = "nanoGPT, its AdamW"


def kinds(bench: Bench) -> tuple[list[str], list[str]]:
    """The candidates that can be measured here, and why the others are left out."""
    names, notes = [OURS, OURS_ADAMW, LLAMA, NANO_GPT], []
    if reason := transformers.why_not():
        names.remove(LLAMA)
        notes.append(reason)
    if bench.settings.nanogpt is None:
        names.remove(NANO_GPT)
        notes.append("nanoGPT is left out: give a checkout of it with --nanogpt PATH.")
    return names, notes


def build(bench: Bench, kind: str, shape: Shape) -> TimedTraining:
    """The training of a candidate in this shape, on random tokens; every step takes the next batch.

    The learning rate is 0, so that repeating a step changes no weight; the work is the same.
    """
    runtime, seed, train = bench.runtime, bench.settings.seed, shape.train
    tokens = random_tokens(shape, seed)
    torch.manual_seed(seed)
    if kind == OURS_ADAMW:
        shape = dataclasses.replace(shape.as_llama(), train=dataclasses.replace(train, optimizer="adamw"))
    if kind == NANO_GPT:
        training = nanogpt.build_training(str(bench.settings.nanogpt), shape, tokens, runtime)
    elif kind == LLAMA:
        model = transformers.llama(Transformer(shape.as_llama().model, shape.vocab_size).to(runtime.device)).train()
        loss_of = partial(transformers_loss, model)
        betas = (train.beta1, train.beta2)
        optimizer = AdamW(model.parameters(), betas=betas, weight_decay=train.weight_decay, fused=True)
        batches = Batches(tokens, shape.model.context_length, train.batch_size, seed)
        training = TimedTraining(shape, model, runtime.compiled(loss_of), [optimizer], batches, runtime)
    else:
        training = our_training(shape, tokens, runtime, seed)
    set_learning_rate(training.optimizers, 0.0)
    return training


def transformers_loss(model: Any, inputs: Tensor, targets: Tensor) -> Tensor:
    """The loss as that library computes it: PyTorch's, of logits in float32."""
    logits = model(input_ids=inputs, use_cache=False).logits
    return F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def random_tokens(shape: Shape, seed: int) -> Tokens:
    """Random tokens, enough for many different batches; their values do not change the cost of a step."""
    count = max(1 << 20, 8 * shape.train.batch_size * shape.model.context_length)
    kind = np.uint16 if shape.vocab_size <= 1 << 16 else np.uint32
    return np.random.default_rng(seed).integers(shape.vocab_size, size=count).astype(kind)
