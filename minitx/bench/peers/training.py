"""Training as PyTorch's users write it: the step of every peer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from minitx.config import TrainConfig
from minitx.system.runtime import Runtime


@dataclass
class PeerTraining:
    """A peer's model with everything that one update needs."""

    model: Any
    loss_of: Callable[[Tensor, Tensor], Tensor]
    """Inputs and targets, each (batch, seq) → mean loss in nats per token."""
    optimizer: Optimizer
    next_batch: Callable[[], tuple[Tensor, Tensor]]
    runtime: Runtime
    config: TrainConfig

    def __post_init__(self) -> None:
        self.parameters = list(self.model.parameters())

    def set_learning_rate(self, rate: float) -> None:
        """Give all parameters the same learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def step(self) -> Tensor:
        """Make one update on the next batches; return the loss of the last of them."""
        for _ in range(self.config.grad_accum):
            inputs, targets = map(self.runtime.move, self.next_batch())
            with self.runtime.autocast():
                loss = self.loss_of(inputs, targets) / self.config.grad_accum
            loss.backward()
        if self.config.grad_clip:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.config.grad_clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()
