"""A candidate's training, up to one update: the same loop for minitx and its peers."""

from dataclasses import dataclass, field
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
from minitx.training.parallel import ALONE, Group
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
    group: Group = field(default_factory=Group)

    def __post_init__(self) -> None:
        self.parameters: list[Tensor] = list(self.model.parameters())
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", 1.0)  # of a peer: `set_learning_rate` sets the rate itself

    def step(self) -> Tensor:
        """Make one update on the next batches; return its loss."""
        train, runtime = self.shape.train, self.runtime
        return train_step(self.loss_of, self.parameters, self.optimizers, self.batches, runtime, train, self.group)[0]


def our_training(shape: Shape, tokens: Tokens, runtime: Runtime, seed: int, group: Group = ALONE) -> TimedTraining:
    """minitx's training as `fit` does it, of this process in `group`."""
    torch.manual_seed(seed)
    train, context_length = shape.train, shape.model.context_length
    model = Transformer(shape.model, shape.vocab_size)
    start(model, train.start, tokens)
    model.to(runtime.device)
    drawn = dropout_of(shape.model)
    batches = Batches(tokens, context_length, train.batch_size, seed, runtime.device, group.share(train), drawn)
    loss_of, optimizers = runtime.compiled(training_loss(model)), build_optimizers(model, train, runtime.dtype, group)
    return TimedTraining(shape, model, loss_of, [*optimizers], batches, runtime, group)
