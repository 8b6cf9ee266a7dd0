"""minitx's RMSNorm on the CPU against the definition and PyTorch's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from minitx.fast.norm import CPUNorm, RMSNorm


def by_definition(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def by_pytorch(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, weight.shape, weight, eps)


def gradient(x: Tensor) -> Tensor:
    assert x.grad is not None
    return x.grad.double()


@pytest.mark.parametrize("shape", [(3, 8), (2, 5, 8), (2, 4, 3, 8), (1, 8), (0, 8)])
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("textbook", [by_definition, by_pytorch])
def test_values_and_gradients_are_those_of_the_textbook(
    shape: tuple[int, ...], strided: bool, textbook: Callable[[Tensor, Tensor, float], Tensor]
) -> None:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(*shape, generator=random)
    if strided and x.dim() > 2:  # a head's vectors lie apart
        x = x.transpose(0, 1).contiguous().transpose(0, 1)
    grad = torch.randn(*shape, generator=random)
    norm = RMSNorm(shape[-1], eps=1e-3)
    norm.weight.data.normal_(generator=random)
    ours = x.clone().requires_grad_()
    norm(ours).backward(grad)
    theirs, weight = x.double().requires_grad_(), norm.weight.detach().double().requires_grad_()
    expected = textbook(theirs, weight, 1e-3)
    expected.backward(grad.double())
    assert (
        ours.grad is not None and norm.weight.grad is not None and theirs.grad is not None and weight.grad is not None
    )
    torch.testing.assert_close(norm(ours).double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient(ours), gradient(theirs), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradient(norm.weight), gradient(weight), rtol=1e-4, atol=1e-6)


def test_the_gradient_is_that_of_finite_differences() -> None:
    x, weight = torch.randn(3, 6, dtype=torch.float64, requires_grad=True), torch.randn(6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x, w: CPUNorm.apply(x, w, 1e-6, x.dtype), (x, weight.requires_grad_()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_looking_and_learning_see_the_same(dtype: torch.dtype) -> None:
    norm, x = RMSNorm(16, eps=1e-6), torch.randn(4, 16).to(dtype)
    with torch.no_grad():
        plain = norm(x)
    assert plain.dtype == norm(x).dtype == dtype
    torch.testing.assert_close(norm(x).detach(), plain, rtol=1e-2 if dtype == torch.bfloat16 else 1e-6, atol=1e-6)


def test_a_zero_vector_has_finite_gradients() -> None:
    x = torch.zeros(2, 4, requires_grad=True)
    RMSNorm(4, eps=1e-6)(x).sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
