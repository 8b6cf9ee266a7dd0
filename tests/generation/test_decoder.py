"""The decoder's logits are the model's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from minitx.config import GenerateConfig, ModelConfig
from minitx.generation import compiled_decoder
from minitx.generation import decoder as decoding
from minitx.generation.compiled_decoder import CompiledDecoder
from minitx.generation.decoder import Decoder
from minitx.generation.generate import generate
from minitx.model import Transformer

SHAPES: list[dict[str, Any]] = [
    {},
    {"qk_norm": False},
    {"n_kv_head": 2},
    {"n_kv_head": 1, "qk_norm": False},
    {"tie_embeddings": True},
]


def model_of(seed: int = 0, **settings: Any) -> Transformer:
    """A model whose norms do something."""
    torch.manual_seed(seed)
    model = Transformer(ModelConfig(**{"n_layer": 2, "d_model": 64, "context_length": 16} | settings), 99).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiled decoder's step as it is written."""
    monkeypatch.setattr(compiled_decoder, "compiled_step", lambda device, threads: CompiledDecoder.step)


@pytest.fixture
def counted() -> Iterator[None]:
    """Nothing is compiled yet."""
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("kind", [Decoder, CompiledDecoder])
@pytest.mark.parametrize("settings", SHAPES)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5), (torch.bfloat16, 0.3)])
def test_logits_are_those_of_the_whole_text(
    kind: type[Decoder], settings: dict[str, Any], batch: int, dtype: torch.dtype, tolerance: float
) -> None:
    model = model_of(**settings).to(dtype)
    tokens = torch.randint(99, (batch, 16))
    with torch.inference_mode():
        expected = model(tokens)
        decoder = kind(model, batch)
        cache = decoder.cache if isinstance(decoder, CompiledDecoder) else model.new_cache(batch)
        model(tokens[:, :5], cache=cache)
        for position in range(5, 16):
            logits = decoder(tokens[:, position], cache)
            assert logits.dtype == dtype
            torch.testing.assert_close(logits, expected[:, position], rtol=0, atol=tolerance)


def test_a_compiled_decoder_takes_no_cache_but_its_own() -> None:
    model = model_of()
    with pytest.raises(ValueError, match="from its own cache"):
        CompiledDecoder(model)(torch.tensor([1]), model.new_cache(1))


def test_a_processor_without_bfloat16_decodes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN refuses matrices in it there."""
    monkeypatch.setattr(decoding, "has_onednn_bfloat16", lambda: False)
    model = model_of().bfloat16()
    with torch.inference_mode():
        decoder = Decoder(model)
        assert not decoder.unembed.packed
        logits = decoder(torch.tensor([1]), model.new_cache(1))
        torch.testing.assert_close(logits, model(torch.tensor([[1]]))[:, 0], rtol=0, atol=0.3)


def test_vectors_near_zero_are_not_blown_up() -> None:
    """The term that RMSNorm adds below the root."""
    model = model_of(norm_eps=1e-2).double()
    model.embedding.weight.data *= 1e-3
    tokens = torch.tensor([[1, 2]])
    cache = model.new_cache(1)
    with torch.inference_mode():
        model(tokens[:, :1], cache=cache)
        logits = Decoder(model)(tokens[:, 1], cache)
        torch.testing.assert_close(logits, model(tokens)[:, 1], rtol=0, atol=1e-12)


def test_what_it_cannot_decode_it_does_not_take() -> None:
    assert Decoder.takes(model_of())
    assert not Decoder.takes(model_of(attention="latent"))
    assert not Decoder.takes(model_of(kept_heads=[[0, 1, 3], [0, 1, 2, 3]]))
    assert not Decoder.takes(model_of().to("meta"))


def test_the_model_stays_as_it_is() -> None:
    model = model_of(tie_embeddings=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    strides = {name: tensor.stride() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        Decoder(model)(torch.tensor([1]), model.new_cache(1))
    assert {name: tensor.stride() for name, tensor in model.state_dict().items()} == strides
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.usefixtures("counted")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_text_is_the_same_also_past_the_context_and_is_compiled_once() -> None:
    model = model_of(n_layer=1, n_kv_head=2)
    decoder = CompiledDecoder(model)
    for prompt in ([1, 2, 3], [4]):
        options = GenerateConfig(max_new_tokens=30)
        texts = [
            list(generate(model, prompt, options, end_token=-1, decoder=each)) for each in (None, decoder, decoder)
        ]
        assert texts[0] == texts[1] == texts[2]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.usefixtures("counted")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_decoders_of_several_models_take_turns() -> None:
    """One program serves all it fits: models of one shape, whatever their weights, rotations and epsilon are, but no
    other. A batch of several, which a GPU decodes, is compiled here for its result alone."""
    kinds: list[dict[str, Any]] = [{}, {"norm_eps": 1e-2, "rope_theta": 100.0}, {"qk_norm": False}, {"n_kv_head": 2}]
    models = [model_of(i, n_layer=1, **settings) for i, settings in enumerate(kinds)]
    for batch, some in ((1, models), (2, models[:1])):
        decoders = [CompiledDecoder(model, batch) for model in some]
        caches = [decoder.cache for decoder in decoders]
        tokens = torch.randint(99, (batch, 4))
        with torch.inference_mode():
            for position in range(4):
                for model, decoder, cache in zip(some, decoders, caches, strict=True):
                    logits, expected = decoder(tokens[:, position], cache), model(tokens[:, : position + 1])[:, -1]
                    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 4


def test_what_the_compiled_decoder_takes() -> None:
    assert CompiledDecoder.takes(model_of())
    assert not CompiledDecoder.takes(model_of(), 2)  # on the CPU
    assert not CompiledDecoder.takes(model_of(attention="latent"))
    assert not CompiledDecoder.takes(model_of(kept_heads=[[0, 1, 3], [0, 1, 2, 3]]))
    assert not CompiledDecoder.takes(model_of().to("meta"))
