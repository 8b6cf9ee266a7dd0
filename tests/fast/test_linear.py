"""A linear layer computes what PyTorch's does, whichever library multiplies."""

from __future__ import annotations

import platform
import types

import pytest
import torch
import torch.nn.functional as F

from minitx.fast import linear
from minitx.fast.linear import Linear, PackedLinear, has_fast_bfloat16, takes_onednn

has_avx512 = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available(),
    reason="oneDNN is taken on CPUs with AVX-512",
)


@pytest.fixture
def amd(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN is taken on AMD alone; its results are right everywhere."""
    monkeypatch.setattr(linear, "is_amd", lambda: True)


def layer_and_input(shape: tuple[int, ...], d_out: int) -> tuple[Linear, torch.Tensor]:
    torch.manual_seed(0)
    return Linear(shape[-1], d_out), torch.randn(shape, requires_grad=True)


@has_avx512
@pytest.mark.usefixtures("amd")
@pytest.mark.parametrize(
    ("shape", "d_out"), [((4, 70, 96), 112), ((300, 64), 64), ((2, 3, 50, 64), 96), ((1, 512), 4096)]
)
def test_values_and_gradients_are_those_of_float64(shape: tuple[int, ...], d_out: int) -> None:
    layer, x = layer_and_input(shape, d_out)
    assert takes_onednn(x, layer.weight)
    y = layer(x)
    slope = torch.randn_like(y)
    y.backward(slope)
    exact_x, exact_weight = (tensor.detach().double().requires_grad_() for tensor in (x, layer.weight))
    exact = F.linear(exact_x, exact_weight)
    exact.backward(slope.double())
    for computed, expected in ((y, exact), (x.grad, exact_x.grad), (layer.weight.grad, exact_weight.grad)):
        assert computed is not None and expected is not None
        assert computed.dtype == torch.float32 and computed.is_contiguous()
        torch.testing.assert_close(computed.double(), expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    with torch.no_grad():
        assert torch.equal(layer(x), y)


@has_avx512
@pytest.mark.usefixtures("amd")
def test_only_the_gradients_asked_for_are_computed() -> None:
    layer, x = layer_and_input((300, 64), 64)
    layer.weight.requires_grad_(False)
    layer(x).sum().backward()
    assert x.grad is not None and layer.weight.grad is None
    layer.weight.requires_grad_(True)
    layer(x.detach()).sum().backward()
    assert layer.weight.grad is not None


@has_avx512
@pytest.mark.usefixtures("amd")
def test_what_is_left_to_pytorch() -> None:
    layer, x = layer_and_input((300, 64), 64)
    assert not takes_onednn(x[:10], layer.weight)  # too small
    assert not takes_onednn(x.double(), layer.weight.double())
    assert not takes_onednn(x.bfloat16(), layer.weight)
    assert not takes_onednn(x.to("meta"), layer.weight.to("meta"))
    with torch.autocast("cpu", torch.bfloat16):
        assert not takes_onednn(x, layer.weight)
        assert layer(x).dtype == torch.bfloat16


@pytest.mark.usefixtures("amd")
def test_without_avx512_it_is_pytorchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(linear, "onednn_product", None)
    layer, x = layer_and_input((300, 64), 64)
    assert torch.equal(layer(x), F.linear(x, layer.weight))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch was built without oneDNN")
@pytest.mark.parametrize("name", linear.ONEDNN)
def test_pytorch_still_has_the_operations_of_onednn(name: str) -> None:
    assert hasattr(torch.ops.mkldnn, name), (
        f"torch {torch.__version__} has no torch.ops.mkldnn.{name} any more: PyTorch multiplies by itself, more slowly"
    )


def test_pytorch_still_says_what_the_processor_can_do() -> None:
    assert {"avx512_bf16", "amx_bf16", "sse4a"} <= set(linear.capabilities()) or platform.machine() != "x86_64", (
        f"torch {torch.__version__} does not name them any more: the CPU computes in float32, with MKL"
    )


@pytest.mark.parametrize(
    ("has", "is_fast"),
    [
        ({}, False),
        ({"avx512_bf16": True}, False),  # Intel without AMX
        ({"avx512_bf16": True, "amx_bf16": True}, True),
        ({"avx512_bf16": True, "sse4a": True}, True),  # AMD
        ({"avx512_bf16": False, "sse4a": True}, False),
    ],
)
def test_bfloat16_is_quick_on_amd_and_with_amx(
    has: dict[str, bool], is_fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert has_fast_bfloat16() is is_fast
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert has_fast_bfloat16() is False


def test_intel_is_left_to_mkl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "is_amd", lambda: False)
    layer, x = layer_and_input((300, 64), 64)
    assert not takes_onednn(x, layer.weight) and torch.equal(layer(x), F.linear(x, layer.weight))


@pytest.mark.usefixtures("amd")
def test_without_the_operations_of_onednn_it_is_pytorchs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plain path in value and gradient."""
    monkeypatch.setattr(torch.ops, "mkldnn", types.SimpleNamespace())
    assert linear.has_onednn.__wrapped__() is False  # what a new process would remember
    monkeypatch.setattr(linear, "has_onednn", lambda: False)
    layer, x = layer_and_input((300, 64), 64)
    y = layer(x)
    y.sum().backward()
    ours = y, x.grad, layer.weight.grad
    x.grad = layer.weight.grad = None
    expected = F.linear(x, layer.weight)
    expected.sum().backward()
    for computed, exact in zip(ours, (expected, x.grad, layer.weight.grad), strict=True):
        assert computed is not None and exact is not None and torch.equal(computed, exact)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("n_vectors", [1, 8])
def test_a_packed_weight_gives_the_same_product(dtype: torch.dtype, n_vectors: int) -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(384, 256).to(dtype), torch.randn(n_vectors, 256).to(dtype)
    with torch.inference_mode():
        product = PackedLinear(weight, n_vectors)(x)
    expected = F.linear(x.double(), weight.double())
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float64: 1e-12}[dtype]
    assert product.dtype == dtype
    torch.testing.assert_close(product.double(), expected, rtol=0, atol=tolerance * expected.abs().max().item())


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_layer_of_no_heads() -> None:
    layer, x = layer_and_input((300, 64), 0)
    assert layer(x).shape == (300, 0)
    assert Linear(0, 64)(x[:, :0]).shape == (300, 64)
