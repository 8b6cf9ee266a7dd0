"""The decoder's logits are the model's."""

from __future__ import annotations

import shutil
import types
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from minitx.config import GenerateConfig, ModelConfig
from minitx.fast import linear
from minitx.generation import compiled_decoder
from minitx.generation.compiled_decoder import CompiledDecoder
from minitx.generation.decoder import Decoder
from minitx.generation.generate import choose_decoder, generate
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
        cache = decoder.new_cache(16)
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
    """Where oneDNN refuses matrices in it."""
    monkeypatch.setattr(linear, "has_onednn_bfloat16", lambda: False)
    model = model_of().bfloat16()
    with torch.inference_mode():
        decoder = Decoder(model)
        assert not decoder.unembed.packed
        logits = decoder(torch.tensor([1]), decoder.new_cache(1))
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


def test_what_it_cannot_decode_it_refuses() -> None:
    assert Decoder.why_not(model_of(), 3) is None
    assert Decoder.why_not(model_of(attention="latent"))
    assert Decoder.why_not(model_of(kept_heads=[[0, 1, 3], [0, 1, 2, 3]]))
    assert Decoder.why_not(model_of().to("meta")) == "not on meta"


def test_the_model_stays_as_it_is() -> None:
    model = model_of(tie_embeddings=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    strides = {name: tensor.stride() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        Decoder(model)(torch.tensor([1]), model.new_cache(1))
    assert {name: tensor.stride() for name, tensor in model.state_dict().items()} == strides
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.slow
@pytest.mark.usefixtures("counted")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_text_is_the_same_also_past_the_context_and_is_compiled_once() -> None:
    model = model_of(n_layer=1, n_kv_head=2)
    decoder = CompiledDecoder(model)
    for prompt in ([1, 2, 3], [4]):
        options = GenerateConfig(max_new_tokens=30)
        texts = [
            list(generate(model, prompt, options, end_token=-1, decoder=kind)) for kind in (None, decoder, decoder)
        ]
        texts.append(list(generate(model, prompt, replace(options, compile=True), end_token=-1)))
        assert texts[0] == texts[1] == texts[2] == texts[3]
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
@pytest.mark.usefixtures("counted")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_decoders_of_several_models_take_turns() -> None:
    """One program serves all it fits: models of one shape, whatever their weights, rotations and epsilon are, but no
    other. A batch of several, which a GPU decodes, is compiled here for its result alone."""
    kinds: list[dict[str, Any]] = [{}, {"norm_eps": 1e-2, "rope_theta": 100.0}, {"qk_norm": False}, {"n_kv_head": 2}]
    models = [model_of(i, n_layer=1, **settings) for i, settings in enumerate(kinds)]
    for batch, some in ((1, models), (2, models[:1])):
        decoders = [CompiledDecoder(model, batch) for model in some]
        caches = [decoder.new_cache() for decoder in decoders]
        tokens = torch.randint(99, (batch, 4))
        with torch.inference_mode():
            for position in range(4):
                for model, decoder, cache in zip(some, decoders, caches, strict=True):
                    logits, expected = decoder(tokens[:, position], cache), model(tokens[:, : position + 1])[:, -1]
                    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 4


def test_what_cannot_be_compiled_is_refused_in_words() -> None:
    assert CompiledDecoder.why_not(model_of()) is None
    assert CompiledDecoder.why_not(model_of(), 2) == "for one sample only, on the CPU"
    heads = "only multi-head attention with all its heads can be"
    assert CompiledDecoder.why_not(model_of(attention="latent"), 2) == heads
    assert CompiledDecoder.why_not(model_of(kept_heads=[[0, 1, 3], [0, 1, 2, 3]])) == heads
    assert CompiledDecoder.why_not(model_of().to("meta")) == "not on meta"


@pytest.mark.parametrize(
    ("attention", "batch", "compile", "kind"),
    [
        ("multi_head", 1, True, CompiledDecoder),
        ("multi_head", 1, False, Decoder),
        ("multi_head", 2, True, Decoder),
        ("latent", 1, True, None),
    ],
)
def test_the_quickest_decoder_that_can_stand_in_is_chosen(
    attention: str, batch: int, compile: bool, kind: type[Decoder] | None
) -> None:
    decoder = choose_decoder(model_of(attention=attention), batch, compile)
    assert (None if decoder is None else type(decoder)) is kind
    assert decoder is None or decoder.batch == batch


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("kind", [Decoder, CompiledDecoder])
def test_a_new_cache_is_empty(kind: type[Decoder]) -> None:
    decoder = kind(model_of())
    with torch.inference_mode():
        logits = [decoder(torch.tensor([token]), decoder.new_cache(16)) for token in (1, 2, 1)]
    assert torch.equal(logits[0], logits[2]) and not torch.equal(logits[0], logits[1])


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("kind", [Decoder, CompiledDecoder])
def test_a_decoder_writes_one_text_after_another(kind: type[Decoder]) -> None:
    """Though the compiled one keeps them all in the same memory."""
    model, options = model_of().double(), GenerateConfig(max_new_tokens=12)
    decoder = kind(model)
    for prompt in ([1, 2, 3, 4, 5, 6, 7], [8], [1, 2, 3, 4, 5, 6, 7]):
        expected = list(generate(model, prompt, options, end_token=-1))
        assert list(generate(model, prompt, options, end_token=-1, decoder=decoder)) == expected


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(("compile", "kind"), [(False, Decoder), (True, CompiledDecoder)])
def test_generate_chooses_its_decoder(compile: bool, kind: type[Decoder], monkeypatch: pytest.MonkeyPatch) -> None:
    """One, and only once a second token is needed."""
    kinds = []
    make = Decoder.__init__

    def spy(self: Decoder, *arguments: Any) -> None:
        kinds.append(type(self))
        make(self, *arguments)

    monkeypatch.setattr(Decoder, "__init__", spy)
    for length, expected in ((1, []), (5, [kind])):
        list(generate(model_of(), [1], GenerateConfig(max_new_tokens=length, compile=compile), end_token=-1))
        assert kinds == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_pytorch_without_onednns_operations_decodes_too(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(d_model=256, d_ff=512).to(dtype)
    tokens, logits = torch.tensor([1, 2, 3, 4]), []
    for packed in (True, False):
        with torch.inference_mode():
            decoder = Decoder(model, 4)
            assert decoder.blocks[0].gate_up.packed is packed
            logits.append(decoder(tokens, decoder.new_cache(1)))
        monkeypatch.setattr(linear, "has_onednn", lambda: False)
        monkeypatch.setattr(torch.ops, "mkldnn", types.SimpleNamespace())
    torch.testing.assert_close(*logits, rtol=0, atol=0.3 if dtype == torch.bfloat16 else 2e-5)
