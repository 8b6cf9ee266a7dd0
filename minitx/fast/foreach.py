"""One call for many tensors: torch's private _foreach operations, or a loop where a version of torch lacks them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

NAMES = ("_foreach_lerp", "_foreach_lerp_", "_foreach_mul_", "_foreach_add_")
"""The private operations; the plain one of `Tensor` has the same name without the prefix."""


def lerp(starts: Sequence[Tensor], ends: Sequence[Tensor], weight: float) -> list[Tensor]:
    """start + weight · (end - start) for each pair."""
    return call("lerp", starts, [(end, weight) for end in ends], ends, weight)


def lerp_(starts: Sequence[Tensor], ends: Sequence[Tensor], weight: float) -> None:
    """The same, written into the starts."""
    call("lerp_", starts, [(end, weight) for end in ends], ends, weight)


def scale_(tensors: Sequence[Tensor], factor: float) -> None:
    """Multiply every tensor by `factor`."""
    call("mul_", tensors, [(factor,)] * len(tensors), factor)


def add_(tensors: Sequence[Tensor], others: Sequence[Tensor], alpha: float) -> None:
    """Add alpha · other to each tensor."""
    call("add_", tensors, [(other,) for other in others], others, alpha=alpha)


def call(name: str, tensors: Sequence[Tensor], arguments: Sequence[tuple[Any, ...]], *joint: Any, **named: Any) -> Any:
    """torch._foreach_NAME with the `joint` arguments; where that is missing, Tensor.NAME with `arguments` for each."""
    together: Callable[..., Any] | None = getattr(torch, f"_foreach_{name}", None)
    if together is not None:
        return together(tensors, *joint, **named)
    return [getattr(tensor, name)(*each, **named) for tensor, each in zip(tensors, arguments, strict=True)]
