"""Muon (Jordan et al. 2024): momentum for matrices, each update made orthogonal before it is taken.

What `torch.optim.Muon` computes with `adjust_lr_fn="match_rms_adamw"`, but for all matrices of one shape at a time:
starting a product of small matrices costs more than computing it.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from minitx.fast import foreach

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration, chosen by Jordan et al. for the fastest growth of small singular values."""


class Muon(Optimizer):
    """Nesterov momentum, then orthogonal updates; the weights decay apart from them.

    Liu et al. 2025, equation 4: an update is scaled to the size that AdamW's would have, so that one learning rate
    serves matrices of every shape. The iteration runs in `dtype`.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float,
        momentum: float,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # takes no closure
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(tuple(parameter.shape), []).append(parameter)
            for parameters in by_shape.values():
                self.update(parameters, group)

    def update(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """One update of matrices of one shape."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        velocities = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        foreach.lerp_(velocities, gradients, 1 - group["momentum"])
        ahead = foreach.lerp(gradients, velocities, group["momentum"])
        updates = orthogonal(torch.stack(ahead).to(self.dtype)).to(parameters[0].dtype)  # (matrix, row, column)
        rows, columns = parameters[0].shape
        rate = group["lr"] * 0.2 * math.sqrt(max(rows, columns))
        foreach.scale_(parameters, 1 - group["lr"] * group["weight_decay"])
        foreach.add_(parameters, updates.unbind(), alpha=-rate)


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """(matrix, row, column) → the same with all singular values near 1: U Vᵀ of each U S Vᵀ.

    An odd polynomial moves the singular values alone; `steps` of it take those above 1/1000 into 0.7 to 1.2.
    """
    if matrices.size(1) > matrices.size(2):
        return orthogonal(matrices.mT, steps).mT
    linear, cubic, quintic = COEFFICIENTS
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=cubic, alpha=quintic), x, beta=linear)
    return x
