"""Private parts of torch.compile: this PyTorch still has them, and minitx works without them."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import AdamW, Optimizer

from minitx.fast import compiler

GONE = f"torch {torch.__version__} has no {{}} any more: {{}}"
METHODS = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def python(code: str) -> str:
    """What a fresh Python prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


# Still there


def test_dynamo_still_has_the_guards_that_are_dropped() -> None:
    from torch._dynamo.guards import GuardBuilder
    from torch._dynamo.types import GuardFilterEntry

    gone = sorted(name for name in compiler.DROPPED_GUARDS if not hasattr(GuardBuilder, name))
    assert gone == [], GONE.format(f"guards {gone}", "they are checked at every token again, under another name")
    fields = {field.name for field in dataclasses.fields(GuardFilterEntry)}
    assert "guard_type" in fields, GONE.format("guard_type", "all guards are checked at every token")


def test_torch_compile_still_takes_a_filter_of_guards(monkeypatch: pytest.MonkeyPatch) -> None:
    filters = []

    def optimize(guard_filter_fn: object = None, **_: object) -> Callable[[object], object]:
        filters.append(guard_filter_fn)
        return lambda function: function

    monkeypatch.setattr(torch._dynamo, "optimize", optimize)
    compiler.compile_step(torch.neg, {})
    assert filters == [compiler.guards_on_data], GONE.format("guard_filter_fn", "all guards are checked at every token")


def test_dynamo_still_marks_static_addresses() -> None:
    assert hasattr(torch._dynamo, "mark_static_address"), GONE.format(
        "torch._dynamo.mark_static_address", "a CUDA graph copies weights and cache before every token"
    )
    compiler.keep_in_place(torch.zeros(1))


def test_optimizers_still_wrap_what_dynamo_must_not_compile() -> None:
    slow = "training imports the compiler, which takes as long as all of torch"
    assert hasattr(AdamW.step, "__wrapped__"), GONE.format("AdamW.step.__wrapped__", slow)
    for name in METHODS:
        assert hasattr(getattr(Optimizer, name), "__wrapped__"), GONE.format(f"Optimizer.{name}.__wrapped__", slow)


@pytest.mark.parametrize(("spare", "imported"), [("compiler.spare_the_compiler()", False), ("", True)])
def test_the_compiler_is_spared_by_dynamo_disable(spare: str, imported: bool) -> None:
    code = (
        "import sys, torch\nfrom minitx.fast import compiler\n"
        f"{spare}\n"
        "p = torch.nn.Parameter(torch.ones(2))\np.grad = torch.ones(2)\n"
        "optimizer = compiler.plain_adamw([p])\noptimizer.step()\noptimizer.zero_grad()\n"
        "optimizer.load_state_dict(optimizer.state_dict())\n"
        "print('torch._dynamo' in sys.modules)"
    )
    assert python(code) == f"{imported}\n", GONE.format("__dynamo_disable", "training imports the compiler")


# And not missed


def test_without_a_filter_all_guards_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    def compile(function: Any, *, options: dict[str, Any], **_: bool) -> Any:
        if "guard_filter_fn" in options:
            raise RuntimeError("Unexpected optimization option guard_filter_fn, known options are …")
        return types.SimpleNamespace(function=function, options=options)

    monkeypatch.setattr(torch, "compile", compile)
    compiled: Any = compiler.compile_step(torch.neg, {"cpp.threads": 1})
    assert (compiled.function, compiled.options) == (torch.neg, {"cpp.threads": 1})


def test_guards_of_other_names_stay() -> None:
    guards = [types.SimpleNamespace(guard_type=name) for name in ("TENSOR_MATCH", "CLASS_MATCH", "NEW")]
    assert compiler.guards_on_data(guards) == [True, False, True]
    assert compiler.guards_on_data([object()]) == [True]


def test_without_static_addresses_tensors_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch._dynamo, "mark_static_address")
    compiler.keep_in_place(torch.zeros(1))


def test_an_unwrapped_adamw_steps_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = AdamW.step.__wrapped__  # type: ignore[attr-defined]  # of functools.wraps
    results = []
    for step in (AdamW.step, plain):
        monkeypatch.setattr(AdamW, "step", step)
        parameter = torch.nn.Parameter(torch.arange(4.0))
        optimizer = compiler.plain_adamw([parameter], lr=0.1)
        for _ in range(3):
            parameter.square().sum().backward()
            optimizer.step()
        results.append(parameter.detach())
    assert torch.equal(*results) and not torch.equal(results[0], torch.arange(4.0))


def test_unwrapped_methods_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in METHODS:
        plain = getattr(Optimizer, name).__wrapped__
        monkeypatch.setattr(Optimizer, name, lambda *arguments, plain=plain: plain(*arguments))
    before = [getattr(Optimizer, name) for name in METHODS]
    compiler.spare_the_compiler()
    assert [getattr(Optimizer, name) for name in METHODS] == before
    assert not any(hasattr(method, "__dynamo_disable") for method in before)


def test_importing_it_imports_no_torch() -> None:
    """An error's sentence must not wait for torch."""
    assert python("import sys, minitx.fast.compiler\nprint('torch' in sys.modules)") == "False\n"
