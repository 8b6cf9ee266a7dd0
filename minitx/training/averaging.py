"""The mean of the weights over the last steps of a run, in which the noise of single steps cancels.

Izmailov et al. 2018 (stochastic weight averaging), with a learning rate that still falls.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minitx.config import TrainConfig
from minitx.fast import foreach
from minitx.training.parallel import ALONE, Group


class WeightAverage:
    """Averages `parameters` over the share `average_fraction` of a run's steps; the last step takes the mean."""

    def __init__(self, parameters: Sequence[Tensor], config: TrainConfig, group: Group = ALONE) -> None:
        self.parameters, self.group = list(parameters), group
        self.begin, self.end = config.steps - round(config.average_fraction * config.steps), config.steps
        self.count = 0
        self.mean: list[Tensor] = []

    @torch.no_grad()
    def add(self, step: int) -> None:
        """Take in the weights after `step`, if it is one of the last; after the very last, leave the mean in them."""
        if step <= self.begin:
            return
        self.mean = self.mean or [parameter.clone() for parameter in self.parameters]
        self.count += 1
        foreach.lerp_(self.mean, self.parameters, 1 / self.count)
        if step == self.end:
            for parameter, mean in zip(self.parameters, self.mean, strict=True):
                parameter.copy_(mean)
            self.count, self.mean = 0, []

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: after which step the mean begins, of how many steps it is, and its whole tensors."""
        return {"begin": self.begin, "count": self.count, "mean": [self.group.whole(mean) for mean in self.mean]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`, or begin anew where other steps are to be averaged.

        Raises ValueError or LookupError where the mean is of other parameters.
        """
        if state["begin"] != self.begin or not state["mean"]:
            return
        pairs = list(zip(state["mean"], self.parameters, strict=True))
        if any(value.shape != parameter.shape for value, parameter in pairs):
            raise ValueError("its mean of the weights has other shapes")
        self.count = int(state["count"])
        self.mean = [self.group.part_like(value, parameter).to(parameter) for value, parameter in pairs]
