"""torch.compile: its faults, its cache, and keeping it from being imported where it is not asked for."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch.optim import AdamW, Optimizer

COMPILER_CACHE = "TORCHINDUCTOR_CACHE_DIR"
"""Variable that names the folder in which torch.compile keeps programs; torch sets it where nobody has."""


def is_compiler_fault(error: BaseException) -> bool:
    """Whether an exception is torch.compile's way to say that it cannot compile, for want of a C++ compiler, say."""
    return type(error).__module__.startswith(("torch._dynamo", "torch._inductor")) or in_compiler_cache(error)


def in_compiler_cache(error: BaseException) -> bool:
    """Whether an exception says that a file in torch.compile's cache, or the folder itself, cannot be had."""
    fault = getattr(error, "inner_exception", error)
    cache = os.environ.get(COMPILER_CACHE)
    if cache is None or not isinstance(fault, OSError) or fault.filename is None:
        return False
    file = Path(str(fault.filename))
    return file.is_relative_to(cache) or Path(cache).is_relative_to(file)  # or a folder that was to hold it


def forget_programs() -> None:
    """Free what torch.compile has made: it keeps eight programs of one function and runs a ninth uncompiled."""
    if "torch._dynamo" in sys.modules:  # else there is none, and importing it takes a second
        torch.compiler.reset()


class PlainAdamW(AdamW):
    """PyTorch's AdamW without what its `step` does for torch.compile, which would import the compiler."""

    step = torch.no_grad()(getattr(AdamW.step, "__wrapped__", AdamW.step))


def spare_the_compiler() -> None:
    """Keep optimizers from importing torch's compiler, which takes as long as all of torch.

    They do it on first use to have some methods not compiled, and look up whether that is done already: it is said to
    be. Only the model is ever compiled here. A torch that goes about it in another way is left alone.
    """
    for method in (Optimizer.add_param_group, Optimizer.zero_grad, Optimizer.state_dict, Optimizer.load_state_dict):
        plain = getattr(method, "__wrapped__", None)
        if plain is not None:
            vars(plain).setdefault("__dynamo_disable", plain)
