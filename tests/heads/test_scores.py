"""Head scores against hand-made patterns, uniform attention and an independent loop over every entry."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import numpy as np
import pytest

from minitx.heads.likeness import rank_correlation, semantic_correlation, similarity
from minitx.heads.roles import ROLES, UNCLASSIFIED, roles, strength
from minitx.heads.scores import SCORES, chance, score_heads, spread_over_texts

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
                "first_mention": [j for j in range(1, i) if sequence[j] == token and token not in sequence[:j]],
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
    tokens, pattern = np.array([[3, 1, 2, 1]]), looking_at([0, 1, 1, 1])
    poisoned = np.where(np.tril(np.ones((4, 4), bool)), pattern, np.nan)
    clean = score_heads(pattern, tokens)
    assert {name: value.tolist() for name, value in score_heads(poisoned, tokens).items()} == {
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


def transformer_lens_pattern(kind: str, tokens: list[int]) -> np.ndarray:
    """The detection pattern of TransformerLens's `head_detector.py` (get_previous_token_head_detection_pattern and so
    on), written again from its definitions: 1 where a head of that kind is to look."""
    seq = len(tokens)
    pattern = np.zeros((seq, seq))
    if kind == "previous_token_head":
        pattern[1:, :-1] = np.eye(seq - 1)
    else:
        for i in range(seq):
            for j in range(seq):
                pattern[i, j] = tokens[i] == tokens[j] and i != j
        if kind == "induction_head":  # the duplicate pattern, every column one to the right
            pattern = np.concatenate([np.zeros((seq, 1)), pattern[:, :-1]], axis=1)
    return np.tril(pattern)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("previous_token", "previous_token_head"),
        ("duplicate_token", "duplicate_token_head"),
        ("induction", "induction_head"),
    ],
)
def test_scores_equal_the_head_detector_of_transformer_lens(name: str, kind: str) -> None:
    """Its score by multiplication is the sum of pattern times detection pattern over the sum of the pattern, all
    queries together; ours divides by the queries that are detected at all. On a text whose tokens do not repeat at
    once both detect the same entries, so that the two differ by that known factor alone."""
    tokens = [3, 1, 4, 2, 3, 5, 4, 1, 2, 5, 3, 4]
    patterns = random_patterns((2, 1, 3, 12, 12), np.float32)
    scores = score_heads(patterns, np.array([tokens]))[name]
    detection = transformer_lens_pattern(kind, tokens)
    queries = (detection.sum(axis=1) > 0).sum()
    for layer in range(2):
        for head in range(3):
            pattern = patterns[layer, 0, head].astype(np.float64)
            theirs = (pattern * detection).sum() / pattern.sum()
            assert scores[layer, head] == pytest.approx(theirs * len(tokens) / queries, abs=1e-6)


def one_role(scores: Mapping[str, float], by_chance: Mapping[str, float]) -> tuple[str, float]:
    """The role of a single head and its strength."""
    names, strengths = roles({name: np.array([[score]]) for name, score in scores.items()}, by_chance)
    return names.item(), strengths.item()


def test_a_role_is_a_share_of_what_chance_leaves() -> None:
    by_chance = dict.fromkeys(ROLES, 0.2)
    quiet = dict.fromkeys(ROLES, 0.2)
    np.testing.assert_allclose(strength(np.array([1.0, 0.2, 0.6]), 0.2), [1, 0, 0.5])
    name, how_strongly = one_role({**quiet, "induction": 0.61}, by_chance)
    assert name == "induction" and how_strongly == pytest.approx(0.5125)
    assert one_role({**quiet, "induction": 0.59}, by_chance)[0] == UNCLASSIFIED
    assert one_role({**quiet, "induction": 0.7, "previous_token": 0.8}, by_chance)[0] == "previous_token"
    silent = one_role(dict.fromkeys(ROLES, math.nan), by_chance)
    assert silent[0] == UNCLASSIFIED and math.isnan(silent[1])
    assert one_role({**quiet, "induction": math.nan, "current_token": 0.9}, by_chance)[0] == "current_token"
    # A text of one token repeated: looking back at it is all there is to do, so it shows nothing.
    assert one_role({**quiet, "duplicate_token": 1.0}, {**by_chance, "duplicate_token": 1.0})[0] == UNCLASSIFIED


def test_going_back_to_the_first_mention_is_told_from_going_back_to_all() -> None:
    tokens = np.array([[9, 5, 1, 5, 2, 5, 3, 5]])
    first = score_heads(looking_at([0, 1, 2, 1, 4, 1, 6, 1]), tokens)
    assert first["first_mention"].item() == 1.0 and first["duplicate_token"].item() == 1.0
    latest = score_heads(looking_at([0, 1, 2, 1, 4, 3, 6, 5]), tokens)
    assert latest["first_mention"].item() == pytest.approx(1 / 3) and latest["duplicate_token"].item() == 1.0
    assert roles(first, {name: chance(tokens, name) for name in SCORES}).names.item() == "first_mention"


def test_spread_is_the_standard_deviation_over_texts() -> None:
    tokens = np.array([[1, 2, 1, 3, 2], [1, 1, 2, 2, 1], [1, 2, 3, 4, 5]])
    patterns = random_patterns((1, 3, 2, 5, 5))
    single = [score_heads(patterns[:, [text]], tokens[[text]]) for text in range(3)]
    found = spread_over_texts(patterns, tokens)
    expected = np.std([scores["entropy"] for scores in single], axis=0, ddof=1)
    np.testing.assert_allclose(found["entropy"], expected)
    # The third text has no repeats: it says nothing about them, and counts for nothing.
    expected = np.std([scores["duplicate_token"] for scores in single[:2]], axis=0, ddof=1)
    np.testing.assert_allclose(found["duplicate_token"], expected)
    assert np.isnan(spread_over_texts(patterns[:, :1], tokens[:1])["entropy"]).all()


def test_similarity_of_a_duplicate_is_one_and_of_strangers_zero() -> None:
    head = random_patterns((1, 2, 1, 6, 6))
    alike = similarity(np.concatenate([head, head, random_patterns((1, 2, 2, 6, 6))[:, :, 1:]], axis=2))
    assert alike.shape == (3, 3)
    assert alike[0, 1] == 1.0 and alike[0, 2] < 0.99
    np.testing.assert_array_equal(alike, alike.T)
    strangers = np.concatenate([looking_at([0, 0, 0, 0]), looking_at([0, 1, 2, 3])], axis=2)
    assert similarity(strangers)[0, 1] == pytest.approx(0, abs=1e-12)


def test_similarity_equals_a_loop() -> None:
    patterns = random_patterns((2, 2, 2, 5, 5))
    alike = similarity(patterns)
    rows = [patterns[layer, :, head] for layer in range(2) for head in range(2)]
    for a in range(4):
        for b in range(4):
            total = 0.0
            for text in range(2):
                for i in range(1, 5):
                    for one, other in ((rows[a], rows[b]), (rows[b], rows[a])):
                        for p, q in zip(one[text, i], other[text, i], strict=True):
                            total += 0.5 * p * math.log2(p / ((p + q) / 2)) if p > 0 else 0.0
            assert alike[a, b] == pytest.approx(1 - total / 8, abs=1e-12)


def test_meaning_equals_a_partial_correlation_computed_otherwise() -> None:
    """Least squares on a dummy for each distance, then the correlation of what is left."""
    generator = np.random.default_rng(1)
    tokens = generator.integers(0, 6, (3, 9))
    embedding = generator.normal(size=(6, 4))
    patterns = random_patterns((1, 3, 2, 9, 9))
    for head in range(2):
        attention, cosine, apart = [], [], []
        for text in range(3):
            for i in range(9):
                for j in range(1, i):
                    a, b = embedding[tokens[text, i]], embedding[tokens[text, j]]
                    if tokens[text, i] != tokens[text, j]:
                        attention.append(patterns[0, text, head, i, j])
                        cosine.append(a @ b / math.sqrt((a @ a) * (b @ b)))
                        apart.append(i - j)
        dummies = np.eye(9)[apart]
        left = [
            np.array(v) - dummies @ np.linalg.lstsq(dummies, np.array(v), rcond=None)[0] for v in (attention, cosine)
        ]
        expected = np.corrcoef(*left)[0, 1]
        assert semantic_correlation(patterns, tokens, embedding)[0, head] == pytest.approx(expected, abs=1e-9)


def test_a_head_that_only_looks_nearby_has_no_taste_for_meaning() -> None:
    """Neighbours are related here, so attention that falls with distance goes with likeness before the control."""
    generator = np.random.default_rng(0)
    angle = np.linspace(0, 3, 40)
    embedding = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    tokens = (np.arange(20) + generator.integers(0, 20, (4, 1))).astype(np.int64)
    nearby = np.tril(np.exp(-np.abs(np.arange(20)[:, None] - np.arange(20)) / 3.0))
    unit = embedding[tokens]
    meaning = np.tril(np.exp(4 * unit @ unit.swapaxes(1, 2) + generator.normal(size=(4, 20, 20))))
    patterns = np.stack([np.broadcast_to(nearby, (4, 20, 20)), meaning], axis=1)[None]
    patterns /= patterns.sum(-1, keepdims=True)
    scrambled = tokens[:, generator.permutation(20)]
    found = semantic_correlation(patterns[:, :, [0]], tokens, embedding)[0, 0]
    assert math.isnan(found) or abs(found) < 0.05
    unit = embedding[scrambled]
    taste = np.tril(np.exp(4 * unit @ unit.swapaxes(1, 2)))[None, :, None]
    assert semantic_correlation(taste / taste.sum(-1, keepdims=True), scrambled, embedding)[0, 0] > 0.5


def test_rank_correlation() -> None:
    """Ties share their rank; scipy.stats.spearmanr gives 0.9486832980505139 for the last."""
    assert rank_correlation(np.array([[1, 2], [3, 4]]), np.array([[10, 20], [30, 99]])) == pytest.approx(1)
    assert rank_correlation(np.array([1, 2, 3]), np.array([3, 2, 1])) == pytest.approx(-1)
    assert rank_correlation(np.array([1, 2, 2, 3]), np.array([1, 2, 3, 4])) == pytest.approx(0.9486832980505139)
    assert math.isnan(rank_correlation(np.array([1, 1]), np.array([1, 2])))


def test_roles_name_heads_that_do_one_thing() -> None:
    scores = {name: np.full((1, 3), 0.1) for name in SCORES}
    scores["previous_token"] = np.array([[0.9, 0.3, 0.1]])
    scores["induction"] = np.array([[0.2, np.nan, 0.55]])
    by_chance = dict.fromkeys(SCORES, 0.05)
    assert roles(scores, by_chance).names.tolist() == [["previous_token", "unclassified", "induction"]]


def test_induction_can_be_judged_by_another_score() -> None:
    """Both the tab and `minitx heads` go by repeats where they are known: they told two roles of one head."""
    scores = {name: np.full((1, 1), 0.1) for name in SCORES}
    by_chance = dict.fromkeys([*scores, "induction_on_repeats"], 0.05)
    assert roles(scores, by_chance).names.item() == UNCLASSIFIED
    names, strengths = roles(scores | {"induction_on_repeats": np.full((1, 1), 0.9)}, by_chance)
    assert names.item() == "induction" and strengths.item() == pytest.approx(0.85 / 0.95)
