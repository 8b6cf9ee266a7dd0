"""The loss by blocks against a sum over tokens in float64, in value and gradient."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from minitx.fast import loss
from minitx.fast.loss import cross_entropy


def example(n_token: int, vocab_size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(n_token, vocab_size, generator=random)).to(dtype).requires_grad_()
    return logits, torch.randint(vocab_size, (n_token,), generator=random)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("block", [1, 35, 2**19])  # one token at a time; blocks and a rest; all at once
@pytest.mark.parametrize("share", [1.0, 0.25])  # of a batch whose gradient is added to others'
def test_value_and_gradient_are_those_of_single_tokens(
    dtype: torch.dtype, block: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "BLOCK", block)
    logits, targets = example(12, 7, dtype)
    ours = cross_entropy(logits, targets)
    assert ours.dtype == torch.float32 and "CPUCrossEntropy" in str(ours.grad_fn)
    (ours * share).backward()
    assert logits.grad is not None and logits.grad.dtype == dtype
    expected = torch.zeros(12, 7, dtype=torch.float64)
    total = 0.0
    for token, (row, target) in enumerate(zip(logits.detach().double().tolist(), targets.tolist(), strict=True)):
        partition = sum(math.exp(x) for x in row)
        total += math.log(partition) - row[target]
        for entry, x in enumerate(row):
            expected[token, entry] = share * (math.exp(x) / partition - (entry == target)) / 12
    assert ours.item() == pytest.approx(total / 12, rel=1e-6)
    # To bfloat16's rounding, which is relative: a sure token's small gradient keeps its digits.
    rounding = 1e-2 if dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(logits.grad.double(), expected, rtol=rounding, atol=1e-8)


def test_a_target_whose_probability_is_zero_in_float32() -> None:
    """A loss taken as the logarithm of that probability would be infinite."""
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    value = cross_entropy(logits, torch.tensor([1]))
    value.backward()
    assert value.item() == 200
    assert logits.grad is not None and logits.grad.tolist() == [[1.0, -1.0]]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_logit_that_is_not_finite_shows_in_the_loss(bad: float) -> None:
    logits = torch.tensor([[bad, 0.0], [0.0, 0.0]], requires_grad=True)
    assert not cross_entropy(logits, torch.tensor([1, 0])).isfinite()


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_other_reductions_are_pytorchs_own(reduction: str) -> None:
    logits, targets = example(12, 7, torch.float32)
    assert torch.equal(cross_entropy(logits, targets, reduction), F.cross_entropy(logits, targets, reduction=reduction))


def test_a_compiler_sees_the_textbook_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    logits, targets = example(12, 7, torch.bfloat16)
    assert "CPUCrossEntropy" not in str(cross_entropy(logits, targets).grad_fn)
