"""Attention against PyTorch's module and a float64 loop over heads, and its two code paths against each other."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from minitx.attention import (
    HeadAccess,
    MultiHeadAttention,
    Recorder,
    explicit_attention,
    head_shares,
    rotary_tables,
    split,
)
from minitx.cache import KeyValueCache, LayerCache
from minitx.config import ModelConfig
from minitx.fast.attention import causal_mask, fused_attention, rotate
from minitx.system.errors import UserError
from tests.small import looking


def block(
    d_model: int = 48, n_head: int = 4, n_kv_head: int | None = None, qk_norm: bool = False
) -> MultiHeadAttention:
    torch.manual_seed(0)
    return MultiHeadAttention(ModelConfig(d_model=d_model, n_head=n_head, n_kv_head=n_kv_head, qk_norm=qk_norm)).eval()


def tokens(batch: int = 2, seq: int = 7, d_model: int = 48, seed: int = 1) -> Tensor:
    return torch.randn(batch, seq, d_model, generator=torch.Generator().manual_seed(seed))


def one_layer(*shape: int) -> KeyValueCache:
    """An empty cache of (capacity, batch, kv_head, d_head)."""
    return KeyValueCache([LayerCache(torch.zeros(shape), torch.zeros(shape))])


def torch_reference(ours: MultiHeadAttention, d_model: int, n_head: int) -> nn.MultiheadAttention:
    """PyTorch's module with our weights."""
    theirs = nn.MultiheadAttention(d_model, n_head, bias=False, batch_first=True).eval()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.out_proj.weight.copy_(ours.output.weight)
    return theirs


def float64_loop(ours: MultiHeadAttention, x: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """Output and patterns from one head, one query, one key at a time."""
    weight = {name: getattr(ours, name).weight.double() for name in ("query", "key", "value", "output")}
    n_head, d_head, group = ours.n_head, ours.d_head, ours.n_head // ours.n_kv_head
    batch, seq, d_model = x.shape
    output = torch.zeros(batch, seq, d_model, dtype=torch.float64)
    patterns = torch.zeros(batch, n_head, seq, seq, dtype=torch.float64)
    for b in range(batch):
        for h in range(n_head):
            rows, kv_rows = slice(h * d_head, (h + 1) * d_head), slice(h // group * d_head, (h // group + 1) * d_head)
            for i in range(seq):
                query = weight["query"][rows] @ x[b, i].double()
                visible = range(i + 1) if causal else range(seq)
                scores = [query @ (weight["key"][kv_rows] @ x[b, j].double()) / math.sqrt(d_head) for j in visible]
                weights = torch.stack(scores).exp() / torch.stack(scores).exp().sum()
                patterns[b, h, i, : len(weights)] = weights
                mixed = sum(
                    w * (weight["value"][kv_rows] @ x[b, j].double()) for w, j in zip(weights, visible, strict=True)
                )
                output[b, i] += weight["output"][:, rows] @ mixed
    return output, patterns


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("n_head", [1, 4, 8])
def test_equals_torch_multihead_attention(explicit: bool, causal: bool, n_head: int) -> None:
    ours, x = block(n_head=n_head), tokens()
    mask = ~causal_mask(7, 7) if causal else None
    expected, expected_pattern = torch_reference(ours, 48, n_head)(x, x, x, attn_mask=mask, average_attn_weights=False)
    torch.testing.assert_close(ours(x, causal=causal, heads=looking(explicit)), expected, rtol=0, atol=1e-5)
    recorder = Recorder()
    ours(x, causal=causal, heads=HeadAccess(recorder=recorder))
    torch.testing.assert_close(recorder.patterns[0], expected_pattern, rtol=0, atol=1e-5)


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
def test_equals_float64_loop(explicit: bool, n_kv_head: int) -> None:
    """Guards the grouping: key-value head h serves query heads h · group and following."""
    ours, x = block(n_kv_head=n_kv_head), tokens()
    expected, patterns = float64_loop(ours, x, causal=True)
    torch.testing.assert_close(ours(x, heads=looking(explicit)).double(), expected, rtol=0, atol=1e-5)
    recorder = Recorder()
    ours(x, heads=HeadAccess(recorder=recorder))
    torch.testing.assert_close(recorder.patterns[0].double(), patterns, rtol=0, atol=1e-5)


def test_a_stand_in_takes_the_place_of_a_closed_head() -> None:
    """By hand: half of head 1's output goes, half of the stand-in comes; the other heads are as they were."""
    ours, x, recorder = block(), tokens(), Recorder(want_shares=True)
    stand_in, gates = torch.randn(1, 4, 12), torch.tensor([[1.0, 0.5, 1.0, 1.0]])
    whole = ours(x, heads=HeadAccess(recorder=recorder))
    changed = ours(x, heads=HeadAccess(gates, stand_in=stand_in))
    instead = stand_in[0, 1] @ ours.output.weight[:, 12:24].T
    torch.testing.assert_close(changed, whole - recorder.shares[0][:, 1] / 2 + instead / 2, rtol=0, atol=1e-5)


def test_cross_attention_equals_torch() -> None:
    ours, x, context = block(), tokens(), tokens(seq=11, seed=2)
    expected, _ = torch_reference(ours, 48, 4)(x, context, context)
    for explicit in (True, False):
        torch.testing.assert_close(ours(x, context=context, heads=looking(explicit)), expected, rtol=0, atol=1e-5)


def test_cross_attention_with_itself_is_self_attention() -> None:
    ours, x = block(qk_norm=True), tokens()
    torch.testing.assert_close(ours(x, context=x), ours(x, causal=False), rtol=0, atol=0)


def test_another_context_changes_keys_and_values_and_no_query() -> None:
    """Worked by hand: the queries stay those of x; against the keys and values of the context they give the output."""
    ours, x, context = block(), tokens(), tokens(seq=11, seed=2)
    seen: dict[str, list[Tensor]] = {"query": [], "key": [], "value": []}
    for name, outputs in seen.items():
        layer: nn.Linear = getattr(ours, name)
        layer.register_forward_hook(lambda _, inputs, output, outputs=outputs: outputs.append(output))
    ours(x, causal=False)
    crossed = ours(x, context=context)
    assert torch.equal(*seen["query"])
    assert [output.shape[1] for output in seen["key"] + seen["value"]] == [7, 11, 7, 11]
    query, key, value = (split(seen[name][1], 12) for name in ("query", "key", "value"))
    pattern = (query @ key.transpose(-2, -1) / math.sqrt(12)).softmax(-1)  # (batch, head, 7, 11)
    torch.testing.assert_close(crossed, ours.output((pattern @ value).transpose(1, 2).flatten(2)), rtol=0, atol=1e-5)


def test_gates_may_differ_by_sequence() -> None:
    ours, x = block(), tokens()
    gates = torch.tensor([[1.0, 0.0, 1.0, 0.5], [0.0, 1.0, 1.0, 1.0]])
    for row in range(2):
        alone, together = (ours(x, heads=HeadAccess(g)) for g in (gates[None, row], gates[None]))
        torch.testing.assert_close(together[row], alone[row], rtol=0, atol=1e-6)


@pytest.mark.parametrize("argument", [{"causal": True}, {"rotary": rotary_tables(7, 12, 1e4)}])
def test_cross_attention_refuses_what_it_would_ignore(argument: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="cross-attention"):
        block()(tokens(), context=tokens(), **argument)


def test_patterns_sum_to_one_and_never_see_the_future() -> None:
    recorder, ours = Recorder(), block(n_kv_head=2, qk_norm=True)
    ours(tokens(seq=33), rotary=rotary_tables(33, 12, 1e4), heads=HeadAccess(recorder=recorder))
    pattern = recorder.patterns[0]
    assert pattern.shape == (2, 4, 33, 33)
    torch.testing.assert_close(pattern.sum(-1), torch.ones(2, 4, 33), rtol=0, atol=1e-6)
    assert (pattern.triu(1) == 0).all()
    assert (pattern.tril() > 0).sum() == 2 * 4 * 33 * 34 / 2


@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
def test_routes_agree(n_kv_head: int) -> None:
    """Also with fewer queries than keys, as when a cache already holds some."""
    generator = torch.Generator().manual_seed(0)
    for n_query, n_key in ((9, 9), (4, 9), (1, 9)):
        query = torch.randn(2, 4, n_query, 12, generator=generator)
        key, value = (torch.randn(2, n_kv_head, n_key, 12, generator=generator) for _ in range(2))
        for causal in (True, False):
            explicit, _ = explicit_attention(query, key, value, causal)
            torch.testing.assert_close(fused_attention(query, key, value, causal), explicit, rtol=0, atol=1e-5)


def test_causal_mask_lets_the_newest_queries_see_their_past() -> None:
    expected = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]).bool()
    assert torch.equal(causal_mask(2, 5), expected)


def test_looped_heads_equal_batched_heads() -> None:
    """Each head run alone as a one-head block of its own slices; their sum is the block."""
    ours, x = block(), tokens()
    total = torch.zeros_like(x)
    for h in range(4):
        rows = slice(12 * h, 12 * h + 12)
        query, key, value = ((x @ getattr(ours, n).weight[rows].T)[:, None] for n in ("query", "key", "value"))
        mixed, _ = explicit_attention(query, key, value, True)
        total += mixed[:, 0] @ ours.output.weight[:, rows].T
    torch.testing.assert_close(ours(x), total, rtol=0, atol=1e-5)


def test_shares_of_the_heads_sum_to_the_output() -> None:
    ours, x, recorder = block(), tokens(), Recorder(want_shares=True)
    output = ours(x, heads=HeadAccess(recorder=recorder))
    assert recorder.shares[0].shape == (2, 4, 7, 48)
    torch.testing.assert_close(recorder.shares[0].sum(1), output, rtol=0, atol=1e-5)
    by_hand = recorder.head_outputs[0][:, 2] @ ours.output.weight[:, 24:36].T
    torch.testing.assert_close(recorder.shares[0][:, 2], by_hand, rtol=0, atol=1e-6)
    torch.testing.assert_close(head_shares(recorder.head_outputs[0], ours.output.weight), recorder.shares[0])


def test_recording_changes_no_bit() -> None:
    ours, x = block(qk_norm=True), tokens()
    assert torch.equal(ours(x, heads=looking(True)), ours(x, heads=HeadAccess(recorder=Recorder(want_shares=True))))


def test_a_recorder_always_gets_a_pattern() -> None:
    recorder = Recorder()
    block()(tokens(), heads=HeadAccess(recorder=recorder))
    assert len(recorder.patterns) == len(recorder.head_outputs) == 1


@pytest.mark.parametrize("explicit", [True, False])
def test_gate_of_zero_removes_a_head(explicit: bool) -> None:
    ours, x, recorder = block(), tokens(), Recorder(want_shares=True)
    whole = ours(x, heads=HeadAccess(recorder=recorder))
    without = ours(x, heads=looking(explicit, torch.tensor([[1.0, 0.0, 1.0, 1.0]])))
    torch.testing.assert_close(without, whole - recorder.shares[0][:, 1], rtol=0, atol=1e-5)
    assert torch.equal(ours(x, heads=looking(explicit, torch.ones(1, 4))), ours(x, heads=looking(explicit)))


@pytest.mark.parametrize("pieces", [[7], [1] * 7, [3, 4], [2, 1, 4]])
@pytest.mark.parametrize("explicit", [True, False])
def test_cached_equals_uncached(pieces: list[int], explicit: bool) -> None:
    ours, x = block(n_kv_head=2, qk_norm=True), tokens()
    cos, sin = rotary_tables(7, 12, 1e4)
    cache, outputs = one_layer(7, 2, 2, 12), []
    for piece in x.split(pieces, dim=1):
        here = slice(cache.length, cache.length + piece.size(1))
        outputs.append(ours(piece, rotary=(cos[here], sin[here]), cache=cache, heads=looking(explicit)))
        cache.length += piece.size(1)
    torch.testing.assert_close(torch.cat(outputs, 1), ours(x, rotary=(cos, sin)), rtol=0, atol=1e-5)
    assert cache.nbytes == 2 * 2 * 2 * 7 * 12 * 4


def test_a_full_cache_is_refused() -> None:
    cache = one_layer(3, 1, 1, 4)
    cache.append(0, torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4))
    cache.length = 2
    with pytest.raises(ValueError, match="4 tokens do not fit into a cache of 3"):
        cache.append(0, torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4))


def test_rotary_positions_turn_pairs_by_their_angle() -> None:
    """Against complex multiplication, the definition in the paper; scores depend on the distance alone."""
    cos, sin = rotary_tables(20, 8, 100.0)
    x = tokens(1, 20, 8)[:, None]
    turned = torch.complex(x[..., :4].double(), x[..., 4:].double()) * torch.exp(
        1j * torch.arange(20)[:, None].double() * 100.0 ** (-torch.arange(0, 8, 2).double() / 8)
    )
    expected = torch.cat([turned.real, turned.imag], -1)
    torch.testing.assert_close(rotate(x, (cos, sin)).double(), expected, rtol=0, atol=1e-5)
    same = x[:, :, :1].expand(-1, -1, 20, -1)
    scores = rotate(same, (cos, sin)) @ rotate(same, (cos, sin)).transpose(-2, -1)
    torch.testing.assert_close(scores[0, 0, 3:, 3:], scores[0, 0, :-3, :-3], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("seq", "d_model", "n_head"), [(5, 512, 8), (10, 768, 12)])
def test_worked_shapes_of_the_literature(seq: int, d_model: int, n_head: int) -> None:
    """Vaswani et al. 2017: X [5, 512] → 8 heads of [5, 64] → [5, 512]; GPT-2: 768 wide, 12 heads of 64."""
    ours, recorder = block(d_model, n_head), Recorder()
    output = ours(tokens(1, seq, d_model), heads=HeadAccess(recorder=recorder))
    assert split(ours.query(tokens(1, seq, d_model)), 64).shape == (1, n_head, seq, 64)
    assert recorder.patterns[0].shape == (1, n_head, seq, seq)
    assert recorder.head_outputs[0].shape == (1, n_head, seq, 64)
    assert output.shape == (1, seq, d_model)


def test_every_head_count_costs_the_same() -> None:
    """Parameters, and FLOPs as PyTorch counts them, on both routes."""
    costs = set()
    for n_head in (1, 2, 3, 4, 6, 8, 12, 24):
        ours = block(48, n_head)
        flops = []
        for explicit in (True, False):
            with FlopCounterMode(display=False) as counter:
                ours(tokens(), causal=False, heads=looking(explicit))
            flops.append(counter.get_total_flops())
        costs.add((sum(p.numel() for p in ours.parameters()), *flops))
    assert len(costs) == 1
    parameters, explicit_flops, _ = costs.pop()
    assert parameters == 4 * 48 * 48
    assert explicit_flops == 2 * (2 * 7 * 4 * 48 * 48 + 2 * 2 * 7 * 7 * 48)


@pytest.mark.parametrize(("n_head", "nearest"), [(5, "4 or 6"), (7, "6 or 8"), (9, "8 or 12"), (48, "24")])
def test_heads_that_do_not_divide_are_refused(n_head: int, nearest: str) -> None:
    with pytest.raises(UserError, match=f"model.n_head is {n_head}, .* take {nearest}"):
        ModelConfig(d_model=48, n_head=n_head)
