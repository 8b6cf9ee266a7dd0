"""Scores of attention patterns: what each head attends to, as one number per head. Pure numpy, no model needed.

Patterns (layer, batch, head, query, key) and their tokens (batch, seq) go in, arrays (layer, head) come out.
Every score in `SCORES` is a weighted sum over the pattern, averaged over the queries that it counts. Its weights depend
on the text alone, so they also give the score of a head that spreads its attention evenly: `chance`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Tokens = NDArray[np.integer[Any]]


class Weights(NamedTuple):
    """The weights of one score on a batch of texts."""

    values: Floats
    """(batch, query, key): the weight of each pattern entry; zero where key > query and in queries not counted."""
    counted: NDArray[np.bool_]
    """(batch, query): the queries that the score averages over."""


def score_heads(patterns: NDArray[np.floating[Any]], tokens: Tokens) -> dict[str, Floats]:
    """Every score of `SCORES` for every head: name → (layer, head).

    `patterns` (layer, batch, head, query, key) are causal and each row sums to 1; entries above the diagonal are not
    read. `tokens` (batch, seq) are the texts. The mean is over the counted queries of all texts together, in float64.
    It is NaN where no query counts: these texts say nothing about that score. Raises ValueError for other shapes.
    """
    if patterns.ndim != 5 or patterns.shape[1::2] != tokens.shape or patterns.shape[3] != patterns.shape[4]:
        raise ValueError(f"patterns {patterns.shape} are not (layer, batch, head, query, key) of tokens {tokens.shape}")
    layers, batch, heads, seq, _ = patterns.shape
    queries, keys = np.tril_indices(seq)
    weighed = {}  # name → weights (batch * pair), number of counted queries
    for name, score in SCORES.items():
        weights, counted = score.weigh(tokens)
        weighed[name] = weights[:, queries, keys].reshape(-1), counted.sum()
    scores = {name: np.full((layers, heads), np.nan) for name in SCORES}
    for layer, pattern in enumerate(patterns):  # one at a time: in float64 all layers would take twice their memory
        causal = np.take(pattern.reshape(batch, heads, seq * seq), queries * seq + keys, axis=-1)
        causal = np.ascontiguousarray(causal.swapaxes(0, 1))  # (head, batch, pair)
        entries = {
            transform: transform(causal).astype(np.float64).reshape(heads, -1)  # (head, batch * pair)
            for transform in {score.transform for score in SCORES.values()}
        }
        for name, (flat, count) in weighed.items():
            if count:
                scores[name][layer] = entries[SCORES[name].transform] @ flat / count
    return scores


def chance(tokens: Tokens, name: str) -> float:
    """The score `name` of uniform causal attention, 1 / (i + 1) from query i to each key, on `tokens` (batch, seq).

    NaN where no query counts. A score means something only beside it.
    """
    weights, counted = SCORES[name].weigh(tokens)
    uniform = SCORES[name].transform(1 / np.arange(1, tokens.shape[1] + 1))  # (query)
    return float((weights.sum(axis=2) @ uniform).sum() / counted.sum()) if counted.any() else float("nan")


def spread_over_texts(patterns: NDArray[np.floating[Any]], tokens: Tokens) -> dict[str, Floats]:
    """The standard deviation of every score over the texts of the batch: name → (layer, head); NaN below two texts.

    A text in which no query counts for a score is left out of that score's deviation.
    """
    single = [score_heads(patterns[:, text : text + 1], tokens[text : text + 1]) for text in range(len(tokens))]
    spreads = {}
    for name in SCORES:
        values = np.stack([scores[name] for scores in single])  # (text, layer, head)
        known = values[~np.isnan(values).all(axis=(1, 2))]
        spreads[name] = known.std(axis=0, ddof=1) if len(known) > 1 else np.full(values.shape[1:], np.nan)
    return spreads


def all_keys(tokens: Tokens) -> Weights:
    """Weight 1 everywhere. Over -p ln p it gives the entropy in nats: 0 for one key, ln(i + 1) for uniform attention.

    Clark et al. 2019 (What Does BERT Look At?, section 3.3); Vig and Belinkov 2019 (Analyzing the Structure of
    Attention, section 3.2). Not divided by its maximum, so that exp(entropy) is the number of keys that a head mixes.
    """
    return _every_query(np.ones_like(_distance(tokens)), tokens)


def distance(tokens: Tokens) -> Weights:
    """Weight i - j: how many tokens back the head looks on average (Vig and Belinkov 2019, section 3.2)."""
    return _every_query(_distance(tokens), tokens)


def current_token(tokens: Tokens) -> Weights:
    """Weight 1 on the query's own position (Clark et al. 2019, section 3.1)."""
    return _every_query(_distance(tokens) == 0, tokens)


def previous_token(tokens: Tokens) -> Weights:
    """Weight 1 on the position before the query, which the first query lacks.

    TransformerLens's head detector, previous_token_head; Olsson et al. 2022 (In-context Learning and Induction Heads).
    """
    return _detecting_queries(_distance(tokens) == 1, tokens)


def first_token(tokens: Tokens) -> Weights:
    """Weight 1 on position 0, where heads with nothing to do rest: the attention sink (Xiao et al. 2023).

    The first query is left out: it can only attend to itself.
    """
    return _detecting_queries((np.arange(tokens.shape[1]) == 0) & (_distance(tokens) > 0), tokens)


def duplicate_token(tokens: Tokens) -> Weights:
    """Weight 1 on every earlier occurrence of the query's token, for the queries that have one.

    TransformerLens's head detector, duplicate_token_head; Wang et al. 2022 (Interpretability in the Wild).
    """
    return _detecting_queries(same_token(tokens) & (_distance(tokens) > 0), tokens)


def first_mention(tokens: Tokens) -> Weights:
    """Weight 1 on the first occurrence of the query's token, for the queries that have an earlier one.

    It finds heads that go back from a repeated name to where the text introduced it. First mentions at position 0 are
    left out, since idle heads rest there.
    """
    same = same_token(tokens)
    first = same.argmax(axis=2)[:, :, None] == np.arange(tokens.shape[1])  # (batch, query, key)
    return _detecting_queries(first & (np.arange(tokens.shape[1]) > 0) & (_distance(tokens) > 0), tokens)


def induction(tokens: Tokens) -> Weights:
    """Weight 1 on every token that came right after an earlier occurrence of the query's, for queries that have one.

    The prefix matching of Olsson et al. 2022; TransformerLens's head detector, induction_head. Where a token repeats at
    once, the token after its earlier occurrence is the query itself. That key is left out (TransformerLens counts it):
    a head that attends to itself has looked nothing up.
    """
    after_same = np.zeros((*tokens.shape, tokens.shape[1]), dtype=bool)
    after_same[:, :, 1:] = same_token(tokens)[:, :, :-1]  # key j + 1 where token j is the query's
    return _detecting_queries(after_same & (_distance(tokens) > 0), tokens)


def same_token(tokens: Tokens) -> NDArray[np.bool_]:
    """(batch, query, key): whether query and key hold the same token."""
    same: NDArray[np.bool_] = tokens[:, :, None] == tokens[:, None, :]
    return same


def unchanged(pattern: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """p itself."""
    return pattern


def surprise(pattern: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """-p ln p, 0 where p is 0: the part of each key in the entropy of its row."""
    information: NDArray[np.floating[Any]] = -pattern * np.log(np.maximum(pattern, np.finfo(pattern.dtype).tiny))
    return information


class Score(NamedTuple):
    """One row of `SCORES`."""

    weigh: Callable[[Tokens], Weights]
    column: str
    """Its title in a narrow table."""
    description: str
    transform: Callable[[NDArray[np.floating[Any]]], NDArray[np.floating[Any]]] = unchanged
    """Applied to each pattern entry before it is weighted."""


SCORES = {
    "entropy": Score(
        all_keys, "entropy", "spread of the attention in nats: exp of it is how many keys the head mixes", surprise
    ),
    "distance": Score(distance, "distance", "tokens between the query and what it attends to, on average"),
    "current_token": Score(current_token, "current", "attention to the query's own position"),
    "previous_token": Score(previous_token, "previous", "attention to the position just before the query"),
    "first_token": Score(first_token, "first", "attention to the first position, where idle heads rest"),
    "duplicate_token": Score(
        duplicate_token, "duplicate", "attention to earlier occurrences of the query's token, where it has any"
    ),
    "first_mention": Score(
        first_mention, "mention", "attention to the first occurrence of the query's token, where it is a repeat"
    ),
    "induction": Score(
        induction,
        "induction",
        "attention to what came right after earlier occurrences of the query's token, where it has any",
    ),
}
"""All scores. A new one is a row here, and a line of `MEANINGS` in tensorboard/plugin/static/state.js."""

IMPORTANCE = "how fast the loss changes, in nats per token, as the head's output is scaled: 0 for one that does nothing"
"""Description of `importance.gate_gradient`: no score of patterns, but shown beside them."""


def _distance(tokens: Tokens) -> Floats:
    """(1, query, key): i - j, the same for every text; negative above the diagonal."""
    position = np.arange(tokens.shape[1])
    return (position[:, None] - position)[None].astype(np.float64)


def _every_query(values: NDArray[Any], tokens: Tokens) -> Weights:
    """`values` (1, query, key) of every text up to the diagonal, averaged over all queries."""
    batch, seq = tokens.shape
    return Weights(np.tril(np.broadcast_to(values, (batch, seq, seq)).astype(np.float64)), np.ones((batch, seq), bool))


def _detecting_queries(detected: NDArray[np.bool_], tokens: Tokens) -> Weights:
    """Weight 1 where `detected` (1 or batch, query, key) up to the diagonal, averaged over queries that have any."""
    batch, seq = tokens.shape
    values = np.tril(np.broadcast_to(detected, (batch, seq, seq)).astype(np.float64))
    return Weights(values, values.sum(axis=2) > 0)
