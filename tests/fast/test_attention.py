"""The quick ways to compute attention against the textbook lines: values and gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from minitx.attention import explicit_attention, rotary_tables
from minitx.fast.attention import CPURotation, batched_attention, fused_attention, rotate, signed_tables, turn

Quick = Callable[[Tensor, Tensor, Tensor, bool], Tensor]


def textbook(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
    return explicit_attention(query, key, value, causal)[0]


@pytest.mark.parametrize("quick", [fused_attention, batched_attention])
@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
@pytest.mark.parametrize(("n_query", "n_key"), [(9, 9), (4, 9), (1, 9), (1, 1)])
@pytest.mark.parametrize("causal", [True, False])
def test_attention_is_the_textbook_s(quick: Quick, n_kv_head: int, n_query: int, n_key: int, causal: bool) -> None:
    results = []
    for function in (quick, textbook):
        generator = torch.Generator().manual_seed(0)
        shapes = [(2, 4, n_query, 12), (2, n_kv_head, n_key, 12), (2, n_kv_head, n_key, 12)]
        inputs = [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]
        query, key, value = inputs
        output = function(query, key, value, causal)
        gradients = torch.autograd.grad(output.square().sum(), inputs)
        results.append([output, *gradients])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_bfloat16_on_the_cpu_trains_without_the_fused_kernel() -> None:
    """Its backward pass is far slower there; the results agree to bfloat16's precision."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 4, 9, 12, generator=generator).bfloat16().requires_grad_() for _ in range(3))
    output = fused_attention(query, key, value, True)
    assert output.dtype == torch.bfloat16 and "ScaledDotProduct" not in str(output.grad_fn)
    expected = textbook(query.float(), key.float(), value.float(), True)
    torch.testing.assert_close(output.float(), expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("seq", [1, 20])
def test_rotation_is_the_textbook_s(seq: int) -> None:
    """(a, b) → (a · cos - b · sin, b · cos + a · sin) for the halves of each vector, also for one position alone."""
    x = torch.randn(2, 3, seq, 8, generator=torch.Generator().manual_seed(0))
    cos, sin = rotary_tables(seq + 4, 8, 100.0)
    first, second = x.chunk(2, dim=-1)
    here = cos[4:], sin[4:]
    expected = torch.cat((first * here[0] - second * here[1], second * here[0] + first * here[1]), dim=-1)
    torch.testing.assert_close(rotate(x, here), expected, rtol=0, atol=1e-6)
    tables = signed_tables((cos, sin), x.dtype)
    one = turn(x[:, :, -1], tables[0][-1], tables[1][-1])  # (batch, head, d_head), as decoding turns them
    torch.testing.assert_close(one, expected[:, :, -1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rotation_s_gradient_is_that_of_its_operations(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the gradient comes head by head, and x lies token by token."""
    random, rotary = torch.Generator().manual_seed(0), rotary_tables(20, 8, 100.0)
    flat = torch.randn(2, 20, 3 * 8, generator=random).to(dtype)
    grad = torch.randn(2, 3, 20, 8, generator=random).to(dtype)
    gradients = []
    for compiling in (False, True):
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
        x = flat.clone().requires_grad_()
        turned = rotate(x.unflatten(2, (3, 8)).transpose(1, 2), rotary)
        assert turned.grad_fn is not None
        assert ("CPURotation" in str(turned.grad_fn.next_functions)) is not compiling
        turned.backward(grad)
        gradients.append(x.grad)
    rounding = 2**-7 if dtype == torch.bfloat16 else 1e-6
    torch.testing.assert_close(*gradients, rtol=0, atol=4 * rounding)


def test_the_rotation_s_gradient_is_that_of_finite_differences() -> None:
    x = torch.randn(2, 5, 3, 8, dtype=torch.float64, requires_grad=True)
    cos, sin = (table[:, None] for table in signed_tables(rotary_tables(5, 8, 100.0), torch.float64))
    assert torch.autograd.gradcheck(lambda x: CPURotation.apply(x, cos, sin), x)
