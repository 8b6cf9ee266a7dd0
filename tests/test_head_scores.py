"""Head scores: patterns made by hand, uniform attention, and an independent loop over every entry."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest

from minitx.head_scores import SCORES, chance, score_heads

TEXTS = {
    "repeats": [[1, 2, 3, 1, 2, 3, 1], [5, 5, 6, 5, 7, 6, 6]],
    "no repeats": [[1, 2, 3, 4]],
    "one token": [[7]],
    "two tokens": [[7, 7]],
    "all the same": [[4, 4, 4, 4, 4]],
    "repeats in one text only": [[1, 2, 3, 4], [1, 1, 2, 1]],
}


def one_head(rows: list[list[float]]) -> np.ndarray:
    """(1, 1, 1, query, key) from the rows of one pattern."""
    return np.array(rows)[None, None, None]


def looking_at(keys: list[int]) -> np.ndarray:
    """A head whose query i puts all its attention on keys[i]."""
    return one_head(np.eye(len(keys))[keys].tolist())


def random_patterns(shape: tuple[int, ...], dtype: type = np.float64) -> np.ndarray:
    """Causal patterns with some exact zeros, as underflow in the softmax makes them."""
    generator = np.random.default_rng(0)
    values = np.tril(generator.random(shape) * (generator.random(shape) < 0.8) + np.eye(shape[-1]) * 1e-3)
    return (values / values.sum(axis=-1, keepdims=True)).astype(dtype)


def loop_scores(patterns: np.ndarray, tokens: list[list[int]], layer: int, head: int) -> dict[str, float]:
    """Every score of one head, entry by entry, from the definitions and nothing else."""
    totals = dict.fromkeys(SCORES, 0.0)
    counts = dict.fromkeys(SCORES, 0)
    for text, sequence in enumerate(tokens):
        for i, token in enumerate(sequence):
            row = [float(p) for p in patterns[layer, text, head, i]]
            detected = {
                "current_token": [i],
                "previous_token": [i - 1] if i else [],
                "first_token": [0] if i else [],
                "duplicate_token": [j for j in range(i) if sequence[j] == token],
                "induction": [j + 1 for j in range(i) if sequence[j] == token and j + 1 != i],
            }
            for name, keys in detected.items():
                totals[name] += math.fsum(row[j] for j in keys)
                counts[name] += bool(keys)
            totals["entropy"] -= math.fsum(p * math.log(p) for p in row if p > 0)
            totals["distance"] += math.fsum(p * (i - j) for j, p in enumerate(row))
            counts["entropy"] += 1
            counts["distance"] += 1
    return {name: totals[name] / counts[name] if counts[name] else math.nan for name in SCORES}


@pytest.mark.parametrize("tokens", TEXTS.values(), ids=TEXTS.keys())
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-6)])
def test_scores_equal_a_loop_over_every_entry(tokens: list[list[int]], dtype: type, tolerance: float) -> None:
    seq = len(tokens[0])
    patterns = random_patterns((2, len(tokens), 3, seq, seq), dtype)
    scores = score_heads(patterns, np.array(tokens))
    assert list(scores) == list(SCORES)
    for layer in range(2):
        for head in range(3):
            expected = loop_scores(patterns, tokens, layer, head)
            got = {name: score[layer, head] for name, score in scores.items()}
            assert got == pytest.approx(expected, abs=tolerance, nan_ok=True)


@pytest.mark.parametrize("tokens", TEXTS.values(), ids=TEXTS.keys())
def test_a_uniform_pattern_scores_chance(tokens: list[list[int]]) -> None:
    seq = len(tokens[0])
    uniform = np.broadcast_to(
        np.tril(np.ones((seq, seq))) / np.arange(1, seq + 1)[:, None], (1, len(tokens), 1, seq, seq)
    )
    for name, score in score_heads(uniform, np.array(tokens)).items():
        assert chance(np.array(tokens), name) == pytest.approx(score.item(), abs=1e-12, nan_ok=True)


def test_chance_of_entropy_and_distance_has_a_closed_form() -> None:
    tokens = np.arange(6)[None]
    assert chance(tokens, "entropy") == pytest.approx(np.log(np.arange(1, 7)).mean())
    assert chance(tokens, "distance") == pytest.approx(2.5 / 2)  # the mean of i / 2


def test_heads_made_by_hand() -> None:
    tokens = np.array([[1, 2, 3, 1, 2, 3]])
    cases = {
        "previous_token": ([0, 0, 1, 2, 3, 4], 5 / 6),
        "current_token": ([0, 1, 2, 3, 4, 5], 0.0),
        "first_token": ([0, 0, 0, 0, 0, 0], 2.5),
        "duplicate_token": ([0, 1, 2, 0, 1, 2], 1.5),
        "induction": ([0, 1, 2, 1, 2, 3], 1.0),
    }
    for name, (keys, distance) in cases.items():
        scores = score_heads(looking_at(keys), tokens)
        assert scores[name].item() == 1.0, name
        assert scores["entropy"].item() == 0.0
        assert scores["distance"].item() == pytest.approx(distance)


def test_entropy_counts_the_keys_that_are_mixed() -> None:
    pattern = one_head([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.5, 0, 0.5, 0], [0.25, 0.25, 0.25, 0.25]])
    entropy = score_heads(pattern, np.array([[1, 2, 3, 4]]))["entropy"].item()
    assert entropy == pytest.approx((0 + math.log(2) + math.log(2) + math.log(4)) / 4)


def test_duplicate_and_induction_add_up_all_occurrences() -> None:
    row = [0.1, 0.2, 0.3, 0.15, 0.25]
    pattern = np.tril(np.ones((5, 5)))
    pattern[4] = row
    scores = score_heads(one_head(pattern.tolist()), np.array([[1, 2, 1, 3, 1]]))
    assert scores["duplicate_token"].item() == pytest.approx((1 + row[0] + row[2]) / 2)  # queries 2 and 4
    assert scores["induction"].item() == pytest.approx((1 + row[1] + row[3]) / 2)


def test_induction_does_not_count_looking_at_oneself() -> None:
    """In "a a", what came after the first a is the second a itself: a current-token head must not score."""
    scores = score_heads(looking_at([0, 1, 2]), np.array([[4, 4, 4]]))
    assert scores["current_token"].item() == 1.0
    assert scores["induction"].item() == 0.0
    assert math.isnan(score_heads(looking_at([0, 1]), np.array([[4, 4]]))["induction"].item())


def test_texts_without_qualifying_queries_neither_poison_nor_dilute_the_batch() -> None:
    repeating = looking_at([0, 1, 0])
    silent = looking_at([0, 0, 0])
    both = np.concatenate([repeating, silent], axis=1)
    scores = score_heads(both, np.array([[1, 2, 1], [1, 2, 3]]))
    assert scores["duplicate_token"].item() == 1.0
    assert scores["first_token"].item() == 3 / 4  # of the four queries of both texts, not a mean of means


def test_entries_above_the_diagonal_are_not_read() -> None:
    pattern = looking_at([0, 1, 1])
    poisoned = np.where(np.tril(np.ones((3, 3), bool)), pattern, np.nan)
    clean = score_heads(pattern, np.array([[1, 2, 1]]))
    assert {name: value.tolist() for name, value in score_heads(poisoned, np.array([[1, 2, 1]])).items()} == {
        name: value.tolist() for name, value in clean.items()
    }


def test_shapes_that_disagree_are_refused() -> None:
    with pytest.raises(ValueError, match="are not"):
        score_heads(random_patterns((1, 2, 1, 3, 3)), np.ones((2, 4), dtype=int))
    with pytest.raises(ValueError, match="are not"):
        score_heads(random_patterns((2, 1, 3, 3)), np.ones((2, 3), dtype=int))


def test_scoring_is_quick_and_exact_in_float32() -> None:
    patterns = random_patterns((4, 8, 4, 128, 128), np.float32)
    tokens = np.random.default_rng(1).integers(0, 40, (8, 128))
    started = time.process_time()
    single = score_heads(patterns, tokens)
    assert time.process_time() - started < 0.5  # about 0.01 s; the bound only guards against a loop
    double = score_heads(patterns.astype(np.float64), tokens)
    for name in SCORES:
        np.testing.assert_allclose(single[name], double[name], rtol=1e-6)
