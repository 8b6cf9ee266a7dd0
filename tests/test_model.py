"""The whole transformer: causality, cache, recorder, gates, counts."""

from __future__ import annotations

import math
from typing import cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from minitx.attention import HeadAccess, Recorder
from minitx.config import ModelConfig
from minitx.model import Block, Transformer, next_token_loss
from minitx.model_size import cache_bytes_per_token, matmul_flops_per_token, parameters_by_part
from tests.small import looking, small_model

VOCABULARY = 50


def small(**changes: object) -> Transformer:
    torch.manual_seed(0)
    settings = {"n_layer": 3, "n_head": 4, "d_model": 32, "context_length": 16, **changes}
    return Transformer(ModelConfig(**settings), VOCABULARY).eval()  # type: ignore[arg-type]  # values by name


def some_tokens(batch: int = 2, seq: int = 16) -> Tensor:
    return torch.randint(0, VOCABULARY, (batch, seq), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("explicit", [True, False])
def test_future_tokens_cannot_change_earlier_logits(explicit: bool) -> None:
    model, tokens = small(), some_tokens()
    changed = tokens.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % VOCABULARY
    before, after = model(tokens, heads=looking(explicit)), model(changed, heads=looking(explicit))
    assert torch.equal(before[:, :9], after[:, :9])
    assert not torch.equal(before[:, 9:], after[:, 9:])


LATENT: dict[str, object] = {"attention": "latent", "d_latent": 12, "d_rotary": 4}
PRUNED: dict[str, object] = {"n_kv_head": 2, "kept_heads": [[1, 2, 3], [], [0]]}
"""Groups of one and two query heads, a layer without heads, a key-value head less."""


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"n_kv_head": 1, "qk_norm": False},
        {"n_kv_head": 2, "tie_embeddings": True},
        LATENT,
        PRUNED,
        {**LATENT, "kept_heads": [[], [0, 3], [2]]},
    ],
)
@pytest.mark.parametrize("pieces", [[16], [1] * 16, [5, 11], [9, 1, 1, 5]])
def test_cached_equals_uncached(settings: dict[str, object], pieces: list[int]) -> None:
    model, tokens = small(**settings), some_tokens()
    cache = model.new_cache(batch=2)
    cached = torch.cat([model(piece, cache=cache) for piece in tokens.split(pieces, dim=1)], dim=1)
    torch.testing.assert_close(cached, model(tokens), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "values_per_token"),
    [
        ({}, 3 * 2 * 4 * 8),
        ({"n_kv_head": 2}, 3 * 2 * 2 * 8),
        ({"n_kv_head": 1}, 3 * 2 * 1 * 8),
        (LATENT, 3 * (12 + 4)),
        (PRUNED, (2 + 0 + 1) * 2 * 8),
        ({**LATENT, "kept_heads": [[], [0, 3], [2]]}, 2 * (12 + 4)),
    ],
)
def test_cache_takes_the_bytes_the_formula_says(settings: dict[str, object], values_per_token: int) -> None:
    """Measured on the tensors that fill it; the formula counted by hand."""
    model = small(**settings)
    cache = model.new_cache(batch=3)
    model(some_tokens(batch=3), cache=cache)
    assert cache.nbytes == 3 * 16 * cache_bytes_per_token(model.config)
    assert cache_bytes_per_token(model.config) == values_per_token * 4
    assert cache.length == 16


@pytest.mark.parametrize("settings", [{}, LATENT])
def test_explicit_equals_fused_and_recording_changes_no_bit(settings: dict[str, object]) -> None:
    model, tokens, recorder = small(**settings), some_tokens(), Recorder(want_shares=True)
    explicit = model(tokens, heads=looking(True))
    torch.testing.assert_close(model(tokens), explicit, rtol=0, atol=1e-5)
    assert torch.equal(model(tokens, heads=HeadAccess(recorder=recorder)), explicit)
    assert [pattern.shape for pattern in recorder.patterns.values()] == [(2, 4, 16, 16)] * 3


def test_gates_of_one_change_nothing_and_of_zero_remove_the_head() -> None:
    model, tokens = small(), some_tokens()
    assert torch.equal(model(tokens, heads=HeadAccess(torch.ones(3, 4))), model(tokens))
    gates = torch.ones(3, 4)
    gates[1, 2] = 0
    without = model(tokens, heads=HeadAccess(gates))
    with torch.no_grad():
        model.get_parameter("blocks.1.attention.output.weight")[:, 16:24] = 0
    torch.testing.assert_close(without, model(tokens), rtol=0, atol=1e-5)


def test_more_tokens_than_the_context_are_refused() -> None:
    with pytest.raises(ValueError, match="17 tokens are more than the context length of 16"):
        small()(some_tokens(seq=17))


@pytest.mark.parametrize("settings", [{}, {"n_kv_head": 2, "tie_embeddings": True, "d_ff": 40}, LATENT, PRUNED])
def test_counts(settings: dict[str, object]) -> None:
    """Parameters against torch's own list, FLOPs against torch's counter on the explicit route."""
    model = small(**settings)
    assert sum(parameters_by_part(model).values()) == sum(p.numel() for p in model.parameters())
    assert parameters_by_part(model)["attention"] == sum(
        p.numel() for name, p in model.named_parameters() if ".attention." in name and p.dim() == 2
    )
    with FlopCounterMode(display=False) as counter:
        model(some_tokens(batch=1), heads=looking(True))
    assert matmul_flops_per_token(model, seq=16) * 16 == counter.get_total_flops()


def test_loss_is_cross_entropy_in_nats() -> None:
    logits, targets = torch.zeros(2, 3, 7), torch.zeros(2, 3, dtype=torch.long)
    assert next_token_loss(logits, targets).item() == pytest.approx(math.log(7))
    assert next_token_loss(logits, targets, reduction="sum").item() == pytest.approx(6 * math.log(7))


def test_an_untrained_model_is_about_as_good_as_chance() -> None:
    """Guards the initialisation: neither dead nor overconfident."""
    loss = next_token_loss(small()(some_tokens()), some_tokens()).item()
    assert loss == pytest.approx(math.log(VOCABULARY), rel=0.3)


@pytest.mark.parametrize("settings", [{}, LATENT])
def test_every_parameter_learns(settings: dict[str, object]) -> None:
    model = small(**settings)
    next_token_loss(model(some_tokens()), some_tokens()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 5))
@settings(deadline=None, max_examples=40)
def test_any_split_of_prefill_and_decode_gives_the_same_logits(lengths: list[int], seed: int) -> None:
    """In float64, where only the order of sums can differ."""
    model = small_model(seed=seed).double()
    while sum(lengths) > 32:  # the context
        lengths.pop()
    tokens = torch.randint(30, (2, sum(lengths)), generator=torch.Generator().manual_seed(seed))
    cache = model.new_cache(2)
    with torch.no_grad():
        parts = [model(part, cache=cache) for part in tokens.split(lengths, dim=1)]
        torch.testing.assert_close(torch.cat(parts, 1), model(tokens), rtol=1e-9, atol=1e-11)


def test_dropout_takes_what_it_is_told_and_scales_the_rest() -> None:
    """kept: (batch, layer, 2, seq, d_model), of the output of attention and of the feed-forward layer."""
    torch.manual_seed(0)
    model = Transformer(ModelConfig(n_layer=1, n_head=2, d_model=16, context_length=8, dropout=0.2), 30)
    block, tokens = cast(Block, model.blocks[0]), torch.randint(30, (3, 8))
    kept = torch.rand(3, 1, 2, 8, 16) < 0.8
    rotary = (model.rotary_cos, model.rotary_sin)
    before = model.embedding(tokens)
    assert block.attention is not None
    attended = before + block.attention(block.attention_norm(before), rotary=rotary) * kept[:, 0, 0] / 0.8
    after = attended + block.feed_forward(block.feed_forward_norm(attended)) * kept[:, 0, 1] / 0.8
    torch.testing.assert_close(model.residual(tokens, kept=kept), after)
    assert torch.equal(model.train()(tokens), model.eval()(tokens)), "nothing is dropped unless it is asked for"
