"""Sampling against transformers' logits processors and against plain Python loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from minitx.config import GenerateConfig
from minitx.generation.sampling import draw, keep_top_k, keep_top_p, penalise, probabilities, sample

NEVER = float("-inf")

# Whole numbers make ties, and none are closer than rounding can tell; a row always has a finite logit.
rows = st.lists(
    st.one_of(st.integers(-4, 4).map(float), st.integers(-(10**7), 10**7).map(lambda n: n / 3e5), st.just(NEVER)),
    min_size=1,
    max_size=12,
).filter(lambda row: max(row) > NEVER)
filters = st.builds(
    GenerateConfig,
    temperature=st.one_of(st.just(0.0), st.floats(0.01, 10)),
    top_k=st.none() | st.integers(1, 15),
    top_p=st.none() | st.floats(0.01, 1.0),
    min_p=st.none() | st.floats(0.01, 1.0),
)


def reference_probabilities(row: list[float], options: GenerateConfig) -> list[float]:
    """One row in plain Python, from a ranking by falling logit and rising id."""
    ranking = sorted(range(len(row)), key=lambda i: (-row[i], i))
    if options.temperature == 0:
        return [float(i == ranking[0]) for i in range(len(row))]
    largest = max(row)
    weights = [math.exp((logit - largest) / options.temperature) for logit in row]
    kept = ranking[: options.top_k]
    if options.top_p is not None:
        total, reached = math.fsum(weights[i] for i in kept), 0.0
        for count, i in enumerate(kept, 1):
            reached += weights[i] / total
            assume(abs(reached - options.top_p) > 1e-9 or options.top_p == 1)  # rounding may fall either way
            if reached >= options.top_p and options.top_p < 1:
                kept = kept[:count]
                break
    if options.min_p is not None:
        assume(all(abs(weights[i] - options.min_p) > 1e-9 or weights[i] == 1 for i in kept))
        kept = [i for i in kept if weights[i] >= options.min_p]
    total = math.fsum(weights[i] for i in kept)
    return [weights[i] / total if i in kept else 0.0 for i in range(len(row))]


@settings(max_examples=300, deadline=None)
@given(rows, filters)
def test_probabilities_are_those_of_a_plain_loop(row: list[float], options: GenerateConfig) -> None:
    expected = reference_probabilities(row, options)
    computed = probabilities(torch.tensor([row], dtype=torch.float64), options)[0]
    torch.testing.assert_close(computed, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(rows, filters)
def test_a_row_sums_to_one_and_gives_nothing_to_what_is_impossible(row: list[float], options: GenerateConfig) -> None:
    computed = probabilities(torch.tensor([row], dtype=torch.float64), options)[0]
    assert computed.sum().item() == pytest.approx(1, abs=1e-9)
    assert all(chance == 0 for chance, logit in zip(computed.tolist(), row, strict=True) if logit == NEVER)
    assert computed[row.index(max(row))] > 0


@settings(max_examples=100, deadline=None)
@given(rows, st.floats(0.01, 0.999))
def test_top_p_keeps_the_fewest_that_reach_p(row: list[float], top_p: float) -> None:
    logits = torch.tensor([row], dtype=torch.float64)
    chances = logits.softmax(dim=1)[0]
    kept = keep_top_p(logits, top_p, candidates=len(row))[0] > NEVER
    assert kept.any()
    assert chances[kept].sum() >= top_p - 1e-9
    assert chances[kept].sum() - chances[kept].min() < top_p + 1e-9


@pytest.mark.parametrize("seed", range(20))
def test_the_whole_pipeline_is_that_of_transformers(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(4, 50, generator=generator, dtype=torch.float64)
    ids = torch.randint(0, 50, (4, 10), generator=generator)
    options = GenerateConfig(
        temperature=[0.5, 1.7][seed % 2],
        top_k=[None, 20, 5, 1][seed % 4],
        top_p=[None, 0.9, 0.3][seed % 3],
        min_p=[None, 0.05, 0.4, 0.01, None][seed % 5],
        repetition_penalty=[1.3, 0.8][seed // 2 % 2],
    )
    processors = [
        RepetitionPenaltyLogitsProcessor(options.repetition_penalty),
        TemperatureLogitsWarper(options.temperature),
    ]
    processors += [TopKLogitsWarper(options.top_k)] if options.top_k else []
    processors += [TopPLogitsWarper(options.top_p)] if options.top_p else []
    processors += [MinPLogitsWarper(options.min_p)] if options.min_p else []
    expected = logits.clone()
    for processor in processors:
        expected = processor(ids, expected)
    used = torch.zeros(4, 50, dtype=torch.bool).scatter_(1, ids, True)
    computed = probabilities(penalise(logits, used, options.repetition_penalty), options)
    torch.testing.assert_close(computed, expected.softmax(dim=1), rtol=1e-9, atol=1e-12)


@settings(max_examples=50, deadline=None)
@given(rows, st.floats(1.01, 1e6))
def test_a_penalty_makes_no_used_token_likelier(row: list[float], penalty: float) -> None:
    """Dividing a negative logit, as the paper's formula does, would."""
    logits = torch.tensor([row], dtype=torch.float64)
    used = torch.ones_like(logits, dtype=torch.bool)
    assert (penalise(logits, used, penalty) <= logits).all()
    assert torch.equal(penalise(logits, ~used, penalty), logits)


def test_every_row_is_penalised_for_its_tokens() -> None:
    logits = torch.tensor([[2.0, 1.5], [2.0, 1.5]])
    used = torch.tensor([[True, False], [False, False]])
    options = GenerateConfig(temperature=0, repetition_penalty=2)
    assert sample(logits, used, options, torch.Generator()).tolist() == [1, 0]


def test_of_equals_the_lowest_id_wins() -> None:
    """topk and an unstable sort leave open which of equals they return."""
    level = torch.zeros(2, 500)
    greedy = GenerateConfig(temperature=0)
    assert sample(level, None, greedy, torch.Generator()).tolist() == [0, 0]
    assert (keep_top_k(level, 7) > NEVER).nonzero()[:, 1].tolist() == [*range(7), *range(7)]
    assert (keep_top_p(level, 0.0099, candidates=500) > NEVER).nonzero()[:, 1].tolist() == [*range(5), *range(5)]


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-30, 1e-3])
def test_a_temperature_near_zero_is_greedy(temperature: float) -> None:
    """Dividing before subtracting the maximum overflows to inf - inf."""
    logits = torch.tensor([[1.0, 88.0, -88.0, NEVER], [-3.0, -2.0, -3.0, -500.0]])
    expected = torch.tensor([[0, 1, 0, 0], [0, 1, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(probabilities(logits, GenerateConfig(temperature=temperature)), expected)


def test_a_vocabulary_of_one_token() -> None:
    for options in (GenerateConfig(top_k=3, top_p=0.1, min_p=1), GenerateConfig(temperature=0), GenerateConfig()):
        assert probabilities(torch.tensor([[-7.0]]), options).tolist() == [[1.0]]
        assert sample(torch.tensor([[-7.0]]), None, options, torch.Generator()).tolist() == [0]


def test_tokens_are_drawn_as_often_as_they_should() -> None:
    options = GenerateConfig(temperature=1.5, top_k=5, repetition_penalty=1.5)
    row = torch.tensor([[2.0, 1.0, 0.5, -1.0, 0.0, 1.8, -4.0]])
    used = torch.tensor([[True, False, False, True, False, False, False]])
    draws = 40_000
    tokens = sample(row.expand(draws, -1), used.expand(draws, -1), options, torch.Generator().manual_seed(0))
    counts = tokens.bincount(minlength=7).double()
    expected = draws * torch.tensor(
        reference_probabilities([2 / 1.5, 1.0, 0.5, -1.5, 0.0, 1.8, -4.0], GenerateConfig(temperature=1.5, top_k=5))
    )
    assert (counts[expected == 0] == 0).all()
    likely = expected > 0
    chi_square = ((counts - expected)[likely] ** 2 / expected[likely]).sum().item()
    assert chi_square < 18.5  # 4 degrees of freedom: passed by chance but for 1 in 1000


def test_a_draw_at_the_edge_takes_a_token_that_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    """0 and the number just below 1 must not pick an impossible token before the first or after the last."""
    chances = torch.tensor([[0, 0, 0.7, 0, 0.3, 0], [0, 0.1, 0, 0.2, 0.7, 0]], dtype=torch.float64)
    for number, expected in ((0.0, [2, 1]), (1 - 2**-53, [4, 4])):
        monkeypatch.setattr(
            torch, "rand", lambda *size, number=number, **_: torch.full(size, number, dtype=torch.float64)
        )
        assert draw(chances, torch.Generator()).tolist() == expected


def test_the_generator_alone_decides() -> None:
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))
    state = torch.get_rng_state()
    draws = [
        [sample(logits, None, GenerateConfig(), generator).tolist() for _ in range(20)]
        for generator in (torch.Generator().manual_seed(seed) for seed in (5, 5, 6))
    ]
    assert draws[0] == draws[1] != draws[2]
    assert torch.equal(torch.get_rng_state(), state)


def test_no_more_is_ranked_than_a_filter_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, topk = [], torch.Tensor.topk

    def spy(logits: torch.Tensor, size: int, dim: int) -> object:
        sizes.append(size)
        return topk(logits, size, dim)

    monkeypatch.setattr(torch.Tensor, "topk", spy)
    sharp, level = torch.arange(0.0, 1000.0)[None], torch.zeros(1, 1000)
    for logits, options, expected in (
        (sharp, GenerateConfig(min_p=0.1), []),
        (sharp, GenerateConfig(top_k=1000, top_p=1.0), []),
        (sharp, GenerateConfig(top_k=4, top_p=0.9), [4, 4]),
        (sharp, GenerateConfig(top_p=0.9), [256]),
        (level, GenerateConfig(top_p=0.9), [256, 1000]),
    ):
        sizes.clear()
        probabilities(logits, options)
        assert sizes == expected


@pytest.mark.parametrize("top_p", [0.2555, 0.2565, 0.8995])
def test_top_p_beyond_the_first_look(top_p: float) -> None:
    """The ranking starts with 256 tokens; the answer must not show it."""
    logits = torch.cat((torch.zeros(1, 1000), torch.arange(0.0, 1000.0)[None]))
    kept = keep_top_p(logits, top_p, candidates=1000) > NEVER
    assert kept.sum(dim=1).tolist() == [math.ceil(1000 * top_p), 1 if top_p < 0.6 else 3]


@pytest.mark.parametrize("bad", [[0.0, float("nan")], [NEVER, NEVER], [0.0, float("inf")]])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_of_a_broken_model_are_named(bad: list[float], temperature: float) -> None:
    """argmax of NaN would return an index as if nothing was wrong."""
    with pytest.raises(FloatingPointError, match="not finite"):
        sample(torch.tensor([[0.0, 1.0], bad]), None, GenerateConfig(temperature=temperature), torch.Generator())
