"""Muon computes the same as PyTorch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from minitx.training.muon import Muon, orthogonal

SHAPES = [(16, 16), (16, 16), (40, 16), (16, 40), (40, 16), (16, 16)]


def matrices(seed: int = 0) -> list[nn.Parameter]:
    random = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(*shape, generator=random)) for shape in SHAPES]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_weights_become_those_of_torch(weight_decay: float) -> None:
    ours, theirs = matrices(), matrices()
    batched = Muon(ours, lr=0.02, weight_decay=weight_decay, momentum=0.9, dtype=torch.bfloat16)
    one_by_one = torch.optim.Muon(
        theirs, lr=0.02, weight_decay=weight_decay, momentum=0.9, adjust_lr_fn="match_rms_adamw"
    )
    for step in range(5):
        for parameter, other, gradient in zip(ours, theirs, matrices(step + 1), strict=True):
            parameter.grad, other.grad = gradient.detach().clone(), gradient.detach().clone()
        batched.step()
        one_by_one.step()
    for parameter, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(parameter, other, rtol=0, atol=2e-3)  # bfloat16 rounds by up to 0.004


@pytest.mark.parametrize("shape", [(2, 16, 16), (3, 8, 40), (3, 40, 8)])
def test_updates_are_near_orthogonal_and_turn_nothing(shape: tuple[int, int, int]) -> None:
    """The singular vectors stay, the singular values come near 1."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    u, s, vh = torch.linalg.svd(x.double(), full_matrices=False)
    within = u.mT @ orthogonal(x).double() @ vh.mT
    values = within.diagonal(dim1=1, dim2=2)
    assert values[s > 0.01 * s.amax()].min() > 0.5 and values.max() < 1.3
    assert (within - values.diag_embed()).abs().max() < 1e-3


def test_a_parameter_without_gradient_is_left_alone() -> None:
    ours = matrices()
    ours[0].grad = torch.ones_like(ours[0])
    before = [parameter.detach().clone() for parameter in ours]
    Muon(ours, lr=0.1, weight_decay=0.1, momentum=0.9).step()
    assert [torch.equal(a, b) for a, b in zip(before, ours, strict=True)] == [False] + [True] * 5


def test_a_gradient_of_zeros_moves_nothing() -> None:
    ours = matrices()
    for parameter in ours:
        parameter.grad = torch.zeros_like(parameter)
    before = [parameter.detach().clone() for parameter in ours]
    Muon(ours, lr=0.1, weight_decay=0.0, momentum=0.9).step()
    assert all(torch.equal(a, b) for a, b in zip(before, ours, strict=True))
