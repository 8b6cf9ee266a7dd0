"""torch.compile: its faults, its cache, its private parts, and how not to import it.

A command's error path imports this file, so torch is imported inside the functions that need it.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import AdamW

COMPILER_CACHE = "TORCHINDUCTOR_CACHE_DIR"
"""Variable that names the folder in which torch.compile keeps programs; torch sets it unless the user has."""
DROPPED_GUARDS = {
    "BUILTIN_MATCH",
    "CLASS_MATCH",
    "CLOSURE_MATCH",
    "MODULE_MATCH",
    "NOT_PRESENT_IN_GENERIC_DICT",
    "TYPE_MATCH",
}
"""Guards on functions and classes: they always hold in minitx, and take up to a twelfth of a token's time."""


def is_compiler_fault(error: BaseException) -> bool:
    """Whether torch.compile raised `error` because it cannot compile, for example without a C++ compiler."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor")) or in_compiler_cache(error)


def in_compiler_cache(error: BaseException) -> bool:
    """Whether `error` says that torch.compile's cache, or a file in it, cannot be read or written."""
    fault = getattr(error, "inner_exception", error)
    cache = os.environ.get(COMPILER_CACHE)
    if cache is None or not isinstance(fault, OSError) or fault.filename is None:
        return False
    file = Path(str(fault.filename))
    return file.is_relative_to(cache) or Path(cache).is_relative_to(file)  # or a folder that was to hold it


def forget_programs() -> None:
    """Free all compiled programs: torch.compile keeps eight of one function and runs a ninth uncompiled."""
    if "torch._dynamo" in sys.modules:  # else nothing was compiled, and importing it takes a second
        import torch

        torch.compiler.reset()


def compile_step(
    function: Callable[..., Tensor], options: dict[str, str | int | bool | Callable[..., object]]
) -> Callable[..., Tensor]:
    """The function, compiled at its first call for the shapes of that call, with guards on data alone."""
    import torch

    try:
        filtered = {**options, "guard_filter_fn": guards_on_data}
        return torch.compile(function, fullgraph=True, dynamic=False, options=filtered)
    except RuntimeError:  # this PyTorch has no filter: all guards are checked
        return torch.compile(function, fullgraph=True, dynamic=False, options=options)


def guards_on_data(guards: Sequence[Any]) -> list[bool]:
    """Which of Dynamo's guards are checked at every token: those on tensors and settings, in which decoders differ."""
    return [getattr(guard, "guard_type", None) not in DROPPED_GUARDS for guard in guards]


def materialised(x: Tensor) -> Tensor:
    """Force the compiler to compute x once instead of once per matrix row.

    It fuses operations into one loop wherever it can, but a view by strides needs x in memory.
    """
    x = x.contiguous()  # the layout in which the compiler computes x
    return x.as_strided(x.size(), x.stride())


def keep_in_place(*tensors: Tensor) -> None:
    """Promise that tensors stay at their addresses: a CUDA graph copies all others before each replay."""
    import torch

    mark = getattr(torch._dynamo, "mark_static_address", None)
    if mark is not None:
        for tensor in tensors:
            mark(tensor, guard=False)


def plain_adamw(parameters: Any, **options: Any) -> AdamW:
    """PyTorch's AdamW, without the decorator of its `step`, which would import the compiler."""
    import torch
    from torch.optim import AdamW

    class PlainAdamW(AdamW):
        step = torch.no_grad()(inspect.unwrap(AdamW.step))

    return PlainAdamW(parameters, **options)


def spare_the_compiler() -> None:
    """Keep optimizers from importing torch's compiler, which takes as long as all of torch.

    On first use an optimizer imports the compiler only to exclude four of its methods. Mark them as excluded, and it
    does not. Call this before the first optimizer is made.
    """
    from torch.optim import Optimizer

    for method in (Optimizer.add_param_group, Optimizer.zero_grad, Optimizer.state_dict, Optimizer.load_state_dict):
        plain = getattr(method, "__wrapped__", None)
        if plain is not None:
            vars(plain).setdefault("__dynamo_disable", plain)
