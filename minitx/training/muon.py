"""Muon (Jordan et al. 2024): momentum for matrices, each update made orthogonal before it is taken.

What `torch.optim.Muon` computes with `adjust_lr_fn="match_rms_adamw"`, but in three steps of iteration, not five, and
for all matrices of one shape at a time: starting a product of small matrices costs more than computing it.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from minitx.fast import foreach
from minitx.training.parallel import ALONE, Group

SAFETY = 1.01
COEFFICIENTS = ((8.2872, -23.5959, 17.3004), (4.1071, -2.9478, 0.5448), (3.9487, -2.9089, 0.5518))
"""Of the steps of the quintic iteration, each the best for what the one before leaves (Amsel et al. 2025, Polar
Express), for singular values from 1/1000 on. SAFETY keeps rounded ones from growing."""


class Muon(Optimizer):
    """Nesterov momentum, then orthogonal updates; the weights decay apart from them.

    Liu et al. 2025, equation 4: an update is scaled to the size that AdamW's would have, so that one learning rate
    serves matrices of every shape. The iteration runs in `dtype`.

    head_rows: the rows of a head in matrices whose heads are made orthogonal apart.
    group: processes that share the work, each of which may hold a part of every matrix.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        weight_decay: float,
        momentum: float,
        dtype: torch.dtype = torch.float32,
        head_rows: Mapping[Tensor, int] | None = None,
        group: Group = ALONE,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype, self.head_rows, self.processes = dtype, dict(head_rows or {}), group

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # takes no closure
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    rows = self.head_rows.get(parameter, parameter.size(0))
                    by_shape.setdefault((*parameter.shape, rows), []).append(parameter)
            for (_, _, rows), parameters in by_shape.items():
                self.update(parameters, rows, group)

    def update(self, parameters: list[Tensor], rows: int, group: dict[str, Any]) -> None:
        """One update of matrices of one shape; each block of `rows` rows is made orthogonal by itself."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        velocities = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        foreach.lerp_(velocities, gradients, 1 - group["momentum"])
        ahead = [torch.lerp(*pair, group["momentum"]) for pair in zip(gradients, velocities, strict=True)]
        stacked = torch.stack([self.processes.whole(matrix) for matrix in ahead])  # (matrix, row, column)
        blocks = self.processes.in_parts(orthogonal, stacked.view(-1, rows, stacked.size(2)).to(self.dtype))
        whole = blocks.to(stacked.dtype).view_as(stacked).unbind()
        updates = [self.processes.part_like(*pair) for pair in zip(whole, parameters, strict=True)]
        rate = group["lr"] * 0.2 * math.sqrt(max(stacked.shape[1:]))
        foreach.scale_(parameters, 1 - group["lr"] * group["weight_decay"])
        foreach.add_(parameters, updates, alpha=-rate)


def orthogonal(matrices: Tensor) -> Tensor:
    """(matrix, row, column) → the same with all singular values nearer 1: U Vᵀ of each U S Vᵀ.

    Odd polynomials move the singular values alone; they take those above 1/500 of the norm into 0.18 to 1.87.
    """
    if matrices.size(1) > matrices.size(2):
        return orthogonal(matrices.mT).mT
    x = matrices / (SAFETY * matrices.norm(dim=(1, 2), keepdim=True)).clamp(min=1e-7)
    for linear, cubic, quintic in COEFFICIENTS:
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=cubic, alpha=quintic), x, beta=linear)
    return x
