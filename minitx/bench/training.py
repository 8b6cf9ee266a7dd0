"""A candidate's training, up to one update: the same loop for minitx and its peers."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minitx.bench.shapes import Shape
from minitx.data.batches import Batches, dropout_of
from minitx.data.token_files import Tokens
from minitx.model import Transformer
from minitx.system.runtime import Runtime
from minitx.training.loop import LossOf, train_step, training_loss
from minitx.training.optim import build_optimizers
from minitx.training.parallel import ALONE
from minitx.training.start import start


@dataclass
class TimedTraining:
    """A model with everything that an update needs; `batches` has a method `next`."""

    shape: Shape
    model: Any
    loss_of: LossOf
    optimizers: list[Any]
    batches: Any
    runtime: Runtime

    def __post_init__(self) -> None:
        self.parameters: list[Tensor] = list(self.model.parameters())
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", 1.0)  # of a peer: `set_learning_rate` sets the rate itself

    def step(self) -> Tensor:
        """Make one update on the next batches; return its loss."""
        train = self.shape.train
        return train_step(self.loss_of, self.parameters, self.optimizers, self.batches, self.runtime, train)[0]


def our_training(shape: Shape, tokens: Tokens, runtime: Runtime, seed: int) -> TimedTraining:
    """minitx's training as `fit` does it."""
    torch.manual_seed(seed)
    model = Transformer(shape.model, shape.vocab_size)
    start(model, shape.train.start, tokens)
    model.to(runtime.device)
    length, share = shape.model.context_length, ALONE.share(shape.train)
    batches = Batches(tokens, length, share.rows, seed, runtime.device, share, dropout_of(shape.model))
    loss_of = runtime.compiled(training_loss(model))
    return TimedTraining(
        shape, model, loss_of, [*build_optimizers(model, shape.train, runtime.dtype)], batches, runtime
    )
