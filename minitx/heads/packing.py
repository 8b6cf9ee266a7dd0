"""Patterns as bytes.

A weight p is stored as the byte 255 √p. The error is 0.004 at most and less where p is small, so that 0.0001 still
differs from 0. Patterns are causal, so only key ≤ query is stored, row by row.
"""

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALL = 64
"""Tokens up to which a pattern is stored only once."""
Floats = NDArray[np.floating[Any]]
Levels = NDArray[np.uint8]


def encode_weights(weights: Floats) -> Levels:
    """Weights 0 to 1 → bytes 255 √p; NaN becomes 0."""
    levels = np.sqrt(weights, dtype=np.float32)
    levels *= 255
    levels += 0.5
    return np.clip(np.nan_to_num(levels), 0, 255).astype(np.uint8)


def pack(levels: Levels) -> Levels:
    """(…, query, key) → (…, pair): the entries up to the diagonal, row by row."""
    seq = levels.shape[-1]
    return np.take(levels.reshape(*levels.shape[:-2], seq * seq), _triangle(seq), axis=-1)


def reduce(levels: Levels) -> Levels:
    """(…, seq, seq) → (…, side, side): the largest entry of every square block."""
    starts = block_starts(levels.shape[-1])
    return np.maximum.reduceat(np.maximum.reduceat(levels, starts, axis=-1), starts, axis=-2)


def block_starts(seq: int) -> range:
    """The first token of every block that shares a row of the reduced pattern; blocks of 1 up to `SMALL` tokens."""
    return range(0, seq, -(-seq // SMALL))


def pairs(seq: int) -> int:
    """Entries of a causal pattern."""
    return seq * (seq + 1) // 2


@lru_cache(maxsize=16)
def _triangle(seq: int) -> NDArray[np.intp]:
    return np.flatnonzero(np.tri(seq, dtype=bool))
