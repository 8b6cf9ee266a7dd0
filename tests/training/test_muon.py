"""Muon against its formulas, matrix by matrix in float64, and against PyTorch's with the same iteration."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from minitx.training import muon
from minitx.training.muon import COEFFICIENTS, SAFETY, Muon, orthogonal

SHAPES = [(16, 16), (16, 16), (40, 16), (16, 40), (40, 16), (16, 16)]


def matrices(seed: int = 0) -> list[nn.Parameter]:
    random = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(*shape, generator=random)) for shape in SHAPES]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_weights_become_those_of_torch(weight_decay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the coefficients of Jordan et al."""
    monkeypatch.setattr(muon, "COEFFICIENTS", [(3.4445, -4.7750, 2.0315)] * 5)
    monkeypatch.setattr(muon, "SAFETY", 1.0)
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
    expected = s / s.square().sum(dim=1, keepdim=True).sqrt() / SAFETY
    for linear, cubic, quintic in COEFFICIENTS:
        expected = linear * expected + cubic * expected**3 + quintic * expected**5
    values = within.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(values, expected, rtol=0, atol=1e-3)
    assert (within - values.diag_embed()).abs().max() < 1e-3


def test_singular_values_come_near_one() -> None:
    """As the docstring of `orthogonal` says, also where the largest is almost the whole norm."""
    values = torch.logspace(math.log10(1 / 500), 0, 1000, dtype=torch.float64) / SAFETY
    for linear, cubic, quintic in COEFFICIENTS:
        values = linear * values + cubic * values**3 + quintic * values**5
    assert values.min() > 0.18 and values.max() < 1.87


def test_heads_are_made_orthogonal_apart() -> None:
    """A matrix of two heads moves as two matrices of one head would."""
    together, apart = nn.Parameter(torch.zeros(16, 40)), [nn.Parameter(torch.zeros(8, 40)) for _ in range(2)]
    gradient = torch.randn(16, 40, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 17)[:, None]
    together.grad = gradient.clone()
    for half, part in zip(apart, gradient.split(8), strict=True):
        half.grad = part.clone()
    Muon([together], lr=0.1, weight_decay=0.0, momentum=0.9, head_rows={together: 8}).step()
    Muon(apart, lr=0.1, weight_decay=0.0, momentum=0.9).step()
    torch.testing.assert_close(together.detach(), torch.cat([half.detach() for half in apart]))
    whole = nn.Parameter(torch.zeros(16, 40))
    whole.grad = gradient.clone()
    Muon([whole], lr=0.1, weight_decay=0.0, momentum=0.9).step()
    assert (whole - together).abs().max() > 0.01


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
