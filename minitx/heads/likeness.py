"""Likeness: of two heads' attention, of attention and meaning, of two rankings of the heads."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minitx.heads.scores import Floats, Patterns, Tokens, same_token, surprise


def similarity(patterns: Patterns) -> Floats:
    """How alike any two heads attend: (layer * head, layer * head), 1 for equal patterns, 0 for disjoint ones.

    It is 1 minus the Jensen-Shannon divergence of their rows in bits, averaged over all queries but the first, which
    has no choice. Clark et al. 2019 (section 6) map heads by it. `patterns` is (layer, batch, head, query, key).
    """
    layer, batch, head, seq, _ = patterns.shape
    rows = patterns.swapaxes(1, 2).reshape(layer * head, batch, seq, seq)[:, :, 1:].astype(np.float64)
    entropy = np.array([surprise(row).sum() for row in rows])  # summed over batch and query
    alike = np.ones((len(rows), len(rows)))
    for a in range(len(rows)):
        for b in range(a):
            divergence = surprise((rows[a] + rows[b]) / 2).sum() - (entropy[a] + entropy[b]) / 2
            alike[a, b] = alike[b, a] = 1 - divergence / np.log(2) / max(1, batch * (seq - 1))
    return alike


def semantic_correlation(patterns: Patterns, tokens: Tokens, embedding: NDArray[np.floating[Any]]) -> Floats:
    """Whether a head attends to tokens whose embeddings are like the query's: (layer, head), 0 by chance.

    The correlation of attention with the cosine of the two tokens' rows of `embedding` (vocabulary, d_model). It is
    over all pairs of a query and an earlier key. Both are taken relative to their mean over the pairs of the same
    distance: related words are near each other, and a head that only attends nearby must get 0. Left out are pairs of
    equal tokens, which `duplicate_token` scores, and the first position, where idle heads rest.
    """
    seq = tokens.shape[1]
    pairs = np.tril(np.ones((seq, seq), dtype=bool), -1) & (np.arange(seq) > 0) & ~same_token(tokens)
    text, query, key = np.nonzero(pairs)  # each (pair)
    unit = embedding.astype(np.float64)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    apart = query - key

    def without_distance(values: Floats) -> Floats:
        means = np.bincount(apart, values, minlength=seq) / np.maximum(1, np.bincount(apart, minlength=seq))
        return values - means[apart]

    alike = without_distance(np.einsum("pd,pd->p", unit[tokens[text, query]], unit[tokens[text, key]]))
    correlation = np.full((patterns.shape[0], patterns.shape[2]), np.nan)
    for layer, head in np.ndindex(correlation.shape):
        attention = without_distance(patterns[layer, text, head, query, key].astype(np.float64))
        size = np.sqrt((alike @ alike) * (attention @ attention))
        if size > 1e-12:
            correlation[layer, head] = alike @ attention / size
    return correlation


def rank_correlation(a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]]) -> float:
    """Spearman's correlation of two arrays of one shape: 1 where they order the heads alike.

    Equal values share their mean rank. NaN where one array is constant.
    """

    def ranks(values: NDArray[np.floating[Any]]) -> Floats:
        _, index, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts + 1) / 2)[index]

    first, second = ranks(a), ranks(b)
    first, second = first - first.mean(), second - second.mean()
    size = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / size) if size > 0 else float("nan")
