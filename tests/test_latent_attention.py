"""Latent attention against a float64 loop; its two forms and two code paths against each other."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from minitx.attention import HeadAccess, Recorder, rotary_tables
from minitx.cache import KeyValueCache, LayerCache
from minitx.config import ModelConfig
from minitx.latent_attention import LatentAttention
from tests.small import looking

N_HEAD, D_HEAD, D_LATENT, D_ROTARY, SEQ = 4, 12, 20, 6, 7


def block(qk_norm: bool = True, **changes: object) -> LatentAttention:
    """Every weight random, that of the norm too."""
    torch.manual_seed(0)
    settings = {"d_model": 48, "n_head": N_HEAD, "d_latent": D_LATENT, "d_rotary": D_ROTARY, "dropout": 0.0, **changes}
    config = ModelConfig(attention="latent", qk_norm=qk_norm, **settings)  # type: ignore[arg-type]  # values by name
    ours = LatentAttention(config).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return ours


def empty_cache(batch: int, capacity: int) -> KeyValueCache:
    shapes = ((capacity, batch, 1, width) for width in (D_ROTARY, D_LATENT))
    return KeyValueCache([LayerCache(*map(torch.zeros, shapes))])


def attend(ours: LatentAttention, x: Tensor, cache: KeyValueCache, **arguments: object) -> Tensor:
    """One pass that fills the cache, as the model does."""
    output: Tensor = ours(x, cache=cache, **arguments)
    cache.length += x.size(1)
    return output


def tokens(batch: int = 2, seq: int = SEQ, seed: int = 1) -> Tensor:
    return torch.randn(batch, seq, 48, generator=torch.Generator().manual_seed(seed))


def rotary(start: int = 0, end: int = SEQ) -> tuple[Tensor, Tensor]:
    cos, sin = rotary_tables(SEQ, D_ROTARY, 100.0)
    return cos[start:end], sin[start:end]


def turned(vector: Tensor, position: int) -> Tensor:
    """Rotary position by complex multiplication."""
    half = D_ROTARY // 2
    angle = position * 100.0 ** (-torch.arange(half).double() * 2 / D_ROTARY)
    complex_ = torch.complex(vector[:half], vector[half:]) * torch.exp(1j * angle)
    return torch.cat([complex_.real, complex_.imag])


def float64_loop(ours: LatentAttention, x: Tensor) -> tuple[Tensor, Tensor]:
    """Output and patterns by equations 9 to 19 of DeepSeek-V2, one head, one query, one key at a time."""
    weight = {name: parameter.detach().double() for name, parameter in ours.named_parameters()}
    output = torch.zeros(*x.shape, dtype=torch.float64)
    patterns = torch.zeros(x.size(0), N_HEAD, SEQ, SEQ, dtype=torch.float64)
    for b in range(x.size(0)):
        latents, shared = [], []
        for j in range(SEQ):
            latent = weight["compress.weight"] @ x[b, j].double()
            if "latent_norm.weight" in weight:
                latent = latent / (latent.square().mean() + 1e-6).sqrt() * weight["latent_norm.weight"]
            latents.append(latent)
            shared.append(turned(weight["rotary_key.weight"] @ x[b, j].double(), j))
        for h in range(N_HEAD):
            own = slice(h * D_HEAD, (h + 1) * D_HEAD)
            both = slice(h * (D_HEAD + D_ROTARY), (h + 1) * (D_HEAD + D_ROTARY))
            for i in range(SEQ):
                query = weight["query.weight"][both] @ x[b, i].double()
                content, position = query[:D_HEAD], turned(query[D_HEAD:], i)
                scores = [
                    (content @ (weight["key.weight"][own] @ latents[j]) + position @ shared[j])
                    / math.sqrt(D_HEAD + D_ROTARY)
                    for j in range(i + 1)
                ]
                weights = torch.stack(scores).exp() / torch.stack(scores).exp().sum()
                patterns[b, h, i, : i + 1] = weights
                mixed = sum(w * (weight["value.weight"][own] @ latents[j]) for j, w in enumerate(weights))
                output[b, i] += weight["output.weight"][:, own] @ mixed
    return output, patterns


@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("absorb", [True, False])
@pytest.mark.parametrize("explicit", [True, False])
def test_equals_float64_loop(explicit: bool, absorb: bool, qk_norm: bool) -> None:
    ours, x = block(qk_norm), tokens()
    expected, patterns = float64_loop(ours, x)
    output = ours(x, rotary=rotary(), heads=looking(explicit), absorb=absorb)
    torch.testing.assert_close(output.double(), expected, rtol=0, atol=1e-5)
    recorder = Recorder()
    ours(x, rotary=rotary(), heads=HeadAccess(recorder=recorder), absorb=absorb)
    torch.testing.assert_close(recorder.patterns[0].double(), patterns, rtol=0, atol=1e-5)


@pytest.mark.parametrize("explicit", [True, False])
def test_the_absorbed_form_decodes_the_same(explicit: bool) -> None:
    """One new token after six cached ones, by both forms, and both against no cache."""
    ours, x, outputs = block(), tokens(), []
    for absorb in (True, False):
        cache = empty_cache(2, SEQ)
        attend(ours, x[:, :6], cache, rotary=rotary(0, 6))
        outputs.append(attend(ours, x[:, 6:], cache, rotary=rotary(6, 7), heads=looking(explicit), absorb=absorb))
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(outputs[0], ours(x, rotary=rotary())[:, 6:], rtol=0, atol=1e-5)


def test_decoding_takes_the_absorbed_form_and_a_prompt_the_plain_one() -> None:
    ours, x = block(), tokens()
    unfolded: list[int] = []
    ours.key.register_forward_hook(lambda module, inputs, output: unfolded.append(output.size(1)))
    cache = empty_cache(2, SEQ)
    for start, end in ((0, 5), (5, 6), (6, 7)):
        attend(ours, x[:, start:end], cache, rotary=rotary(start, end))
    assert unfolded == [5]


@pytest.mark.parametrize("pieces", [[7], [1] * 7, [3, 4], [2, 1, 4]])
@pytest.mark.parametrize("explicit", [True, False])
def test_cached_equals_uncached(pieces: list[int], explicit: bool) -> None:
    ours, x, outputs = block(), tokens(), []
    cache = empty_cache(2, SEQ)
    for piece in x.split(pieces, dim=1):
        here = rotary(cache.length, cache.length + piece.size(1))
        outputs.append(attend(ours, piece, cache, rotary=here, heads=looking(explicit)))
    torch.testing.assert_close(torch.cat(outputs, 1), ours(x, rotary=rotary()), rtol=0, atol=1e-5)
    assert cache.nbytes == 2 * SEQ * (D_LATENT + D_ROTARY) * 4


def test_the_cache_forgets_repeats_and_refuses() -> None:
    ours, x = block(), tokens(batch=1)
    cache = empty_cache(1, 5)
    attend(ours, tokens(1, seed=9)[:, :5], cache)
    cache.clear()
    attend(ours, x[:, :3], cache, rotary=rotary(0, 3))
    cache, start = empty_cache(3, 5), cache
    cache.begin_with(start)
    assert cache.nbytes == 3 * 5 * (D_LATENT + D_ROTARY) * 4 and cache.length == 3
    following = attend(ours, x[:, 3:4].expand(3, -1, -1), cache, rotary=rotary(3, 4))
    torch.testing.assert_close(following, ours(x, rotary=rotary())[:, 3:4].expand(3, -1, -1), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="6 tokens do not fit into a cache of 5"):
        attend(ours, x[:, :2].expand(3, -1, -1), cache)


def test_shares_gates_and_recording() -> None:
    ours, x, recorder = block(), tokens(), Recorder(want_shares=True)
    whole = ours(x, rotary=rotary(), heads=HeadAccess(recorder=recorder))
    assert torch.equal(whole, ours(x, rotary=rotary(), heads=looking(True)))
    assert recorder.shares[0].shape == (2, N_HEAD, SEQ, 48)
    torch.testing.assert_close(recorder.shares[0].sum(1), whole, rtol=0, atol=1e-5)
    for absorb in (True, False):
        without = ours(x, rotary=rotary(), heads=HeadAccess(torch.tensor([[1.0, 0.0, 1.0, 1.0]])), absorb=absorb)
        torch.testing.assert_close(without, whole - recorder.shares[0][:, 1], rtol=0, atol=1e-5)


def test_patterns_never_see_the_future() -> None:
    recorder = Recorder()
    block()(tokens(), rotary=rotary(), heads=HeadAccess(recorder=recorder))
    torch.testing.assert_close(recorder.patterns[0].sum(-1), torch.ones(2, N_HEAD, SEQ), rtol=0, atol=1e-6)
    assert (recorder.patterns[0].triu(1) == 0).all()


def test_cross_attention_takes_keys_and_values_from_the_context() -> None:
    ours, x = block(), tokens()
    torch.testing.assert_close(ours(x, context=x), ours(x, causal=False), rtol=0, atol=0)
    other = tokens(seq=11, seed=2)
    changed = x.clone()
    changed[:, 3] += 1
    before, after = ours(x, context=other), ours(changed, context=other)
    assert torch.equal(before[:, :3], after[:, :3]) and not torch.equal(before[:, 3], after[:, 3])
    with pytest.raises(ValueError, match="cross-attention"):
        ours(x, context=other, rotary=rotary())
