"""PyTorch's private _foreach operations against a loop over tensors."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import Tensor

from minitx.fast import foreach

NAMES = ("_foreach_lerp_", "_foreach_mul_", "_foreach_add_")


@pytest.mark.parametrize("name", NAMES)
def test_this_torch_has_the_private_operation(name: str) -> None:
    """A failure names what a new torch dropped; training goes on, by a loop."""
    assert hasattr(torch, name), f"torch.{name} is gone: minitx/fast/foreach.py takes its plain path, which is slower"


def used() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    starts, ends = ([torch.randn(3, 4, generator=generator) for _ in range(3)] for _ in range(2))
    foreach.lerp_(starts, ends, 0.9)
    foreach.scale_(ends, 0.5)
    foreach.add_(ends, starts, alpha=-2.0)
    return [*starts, *ends]


def test_the_plain_path_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = used()
    with monkeypatch.context() as gone:
        for name in NAMES:
            gone.delattr(torch, name)
        importlib.reload(foreach)
        plain = used()
    importlib.reload(foreach)
    assert foreach.lerp_ is torch._foreach_lerp_
    for one, together in zip(plain, expected, strict=True):
        torch.testing.assert_close(one, together, rtol=0, atol=1e-6)
