"""One call for many tensors: torch's private _foreach operations, or a loop where a version of torch lacks them."""

from collections.abc import Callable
from itertools import repeat
from typing import Any

import torch


def for_each(name: str) -> Callable[..., Any]:
    """torch._foreach_NAME; where that is missing, a loop that calls Tensor.NAME with the same arguments."""

    def loop(tensors: list[torch.Tensor], *arguments: Any, **named: Any) -> list[torch.Tensor]:
        columns = [argument if isinstance(argument, list | tuple) else repeat(argument) for argument in arguments]
        return [getattr(tensor, name)(*row, **named) for tensor, *row in zip(tensors, *columns, strict=False)]

    return getattr(torch, f"_foreach_{name}", loop)


lerp_ = for_each("lerp_")  # (starts, ends, weight): adds weight · (end - start) to each start
scale_ = for_each("mul_")  # (tensors, factor): multiplies every tensor by the factor
add_ = for_each("add_")  # (tensors, others, alpha=…): adds alpha · other to each tensor
