"""Scores of attention patterns: what each head attends to, as one number per head. Pure numpy, no model needed.

Patterns (layer, batch, head, query, key) and their tokens (batch, seq) go in, arrays (layer, head) come out.
Every score in `SCORES` is a weighted sum over the pattern, averaged over the queries that count. Its weights depend
on the text alone, so they also give the score of a head that spreads its attention evenly: `chance`.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Patterns = NDArray[np.floating[Any]]
Tokens = NDArray[np.integer[Any]]
Detected = NDArray[np.bool_]


def score_heads(patterns: Patterns, tokens: Tokens, names: Iterable[str] = ()) -> dict[str, Floats]:
    """Every score of `SCORES`, or those of `names`, for every head: name → (layer, head).

    `patterns` (layer, batch, head, query, key) are causal and each row sums to 1; entries above the diagonal are not
    read. `tokens` (batch, seq) are the texts. The mean is over the counted queries of all texts together, in float64,
    and NaN where no query counts. Raises ValueError for other shapes.
    """
    if patterns.ndim != 5 or patterns.shape[1::2] != tokens.shape or patterns.shape[3] != patterns.shape[4]:
        raise ValueError(f"patterns {patterns.shape} are not (layer, batch, head, query, key) of tokens {tokens.shape}")
    layers, batch, heads, seq, _ = patterns.shape
    queries, keys = np.tril_indices(seq)
    chosen = tuple(names) or tuple(SCORES)
    weighed = {}  # name → weights (batch * pair), number of counted queries
    for name in chosen:
        weights, counted = SCORES[name].weigh(tokens)
        weighed[name] = weights[:, queries, keys].reshape(-1), counted.sum()
    scores = {name: np.full((layers, heads), np.nan) for name in chosen}
    for layer, pattern in enumerate(patterns):  # one at a time: in float64 all layers would take twice their memory
        causal = np.take(pattern.reshape(batch, heads, seq * seq), queries * seq + keys, axis=-1)
        causal = np.ascontiguousarray(causal.swapaxes(0, 1))  # (head, batch, pair)
        entries = {
            transform: transform(causal).astype(np.float64).reshape(heads, -1)  # (head, batch * pair)
            for transform in {SCORES[name].transform for name in chosen}
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


def spread_over_texts(patterns: Patterns, tokens: Tokens, names: Iterable[str] = ()) -> dict[str, Floats]:
    """The standard deviation over the texts of the batch of every score, or of those of `names`: name → (layer, head).

    NaN below two texts. A text in which no query counts for a score is left out of that score's deviation.
    """
    chosen = tuple(names) or tuple(SCORES)
    single = [score_heads(patterns[:, text : text + 1], tokens[text : text + 1], chosen) for text in range(len(tokens))]
    spreads = {}
    for name in chosen:
        values = np.stack([scores[name] for scores in single])  # (text, layer, head)
        known = values[~np.isnan(values).all(axis=(1, 2))]
        spreads[name] = known.std(axis=0, ddof=1) if len(known) > 1 else np.full(values.shape[1:], np.nan)
    return spreads


# The weights of each score, (1 or batch, query, key); `Score.weigh` drops those above the diagonal.


def all_keys(tokens: Tokens) -> Floats:
    """Weight 1 everywhere. Over -p ln p it gives the entropy in nats: 0 for one key, ln(i + 1) for uniform attention.

    Clark et al. 2019 (What Does BERT Look At?, section 3.3); Vig and Belinkov 2019 (Analyzing the Structure of
    Attention, section 3.2). Not divided by its maximum, so that exp(entropy) is the number of keys that a head mixes.
    """
    return np.ones_like(distance(tokens))


def distance(tokens: Tokens) -> Floats:
    """Weight i - j: how many tokens back the head looks on average (Vig and Belinkov 2019, section 3.2)."""
    position = np.arange(tokens.shape[1])
    return (position[:, None] - position)[None].astype(np.float64)


def current_token(tokens: Tokens) -> Detected:
    """Weight 1 on the query's own position (Clark et al. 2019, section 3.1)."""
    return distance(tokens) == 0


def previous_token(tokens: Tokens) -> Detected:
    """Weight 1 on the position before the query, which the first query lacks.

    TransformerLens's head detector, previous_token_head; Olsson et al. 2022 (In-context Learning and Induction Heads).
    """
    return distance(tokens) == 1


def first_token(tokens: Tokens) -> Detected:
    """Weight 1 on position 0, where heads with nothing to do rest: the attention sink (Xiao et al. 2023).

    The first query is left out: it can only attend to itself.
    """
    return (np.arange(tokens.shape[1]) == 0) & (distance(tokens) > 0)


def duplicate_token(tokens: Tokens) -> Detected:
    """Weight 1 on every earlier occurrence of the query's token.

    TransformerLens's head detector, duplicate_token_head; Wang et al. 2022 (Interpretability in the Wild).
    """
    return same_token(tokens) & (distance(tokens) > 0)


def first_mention(tokens: Tokens) -> Detected:
    """Weight 1 on the first occurrence of the query's token, if that is an earlier one.

    It detects heads that go back from a repeated name to where the text introduced it. First mentions at position 0
    are left out, since idle heads rest there.
    """
    position = np.arange(tokens.shape[1])
    first = same_token(tokens).argmax(axis=2)[:, :, None] == position  # (batch, query, key)
    return first & (position > 0) & (distance(tokens) > 0)


def induction(tokens: Tokens) -> Detected:
    """Weight 1 on every token that came right after an earlier occurrence of the query's.

    The prefix matching of Olsson et al. 2022; TransformerLens's head detector, induction_head. Where a token repeats at
    once, the token after its earlier occurrence is the query itself. That key is left out (TransformerLens counts it):
    a head that attends to itself has looked nothing up.
    """
    after_same = np.zeros((*tokens.shape, tokens.shape[1]), dtype=bool)
    after_same[:, :, 1:] = same_token(tokens)[:, :, :-1]  # key j + 1 where token j is the query's
    return after_same & (distance(tokens) > 0)


def same_token(tokens: Tokens) -> Detected:
    """(batch, query, key): whether query and key hold the same token."""
    return tokens[:, :, None] == tokens[:, None, :]


def surprise(pattern: Patterns) -> Patterns:
    """-p ln p, 0 where p is 0: the part of each key in the entropy of its row."""
    return -pattern * np.log(np.maximum(pattern, np.finfo(pattern.dtype).tiny))


class Score(NamedTuple):
    """One row of `SCORES`."""

    weights: Callable[[Tokens], Floats | Detected]
    column: str
    """Its title in a narrow table."""
    description: str
    transform: Callable[[Patterns], Patterns] = np.asarray
    """Applied to the pattern's entries before they are weighted; `asarray` leaves them as they are."""
    every_query: bool = False
    """Average over all queries, not only over those with a weight."""

    def weigh(self, tokens: Tokens) -> tuple[Floats, Detected]:
        """The weights (batch, query, key), 0 where key > query, and the queries (batch, query) that count."""
        batch, seq = tokens.shape
        weights = np.tril(np.broadcast_to(self.weights(tokens), (batch, seq, seq)).astype(np.float64))
        return weights, (weights.sum(axis=2) > 0) | self.every_query


SCORES = {
    "entropy": Score(
        all_keys, "entropy", "spread of the attention in nats: exp of it is how many keys the head mixes", surprise
    ),
    "distance": Score(
        distance, "distance", "tokens between the query and what it attends to, on average", every_query=True
    ),
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
"""All scores. A new one is a row here, and a line of `MEANINGS` in tensorboard/plugin/static/state/scores.js."""

IMPORTANCE = "how fast the loss changes, in nats per token, as the head's output is scaled: 0 for one that does nothing"
"""Description of `importance.gate_gradient`: no score of patterns, but shown beside them."""
