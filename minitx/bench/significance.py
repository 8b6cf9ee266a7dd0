"""Whether two recipes differ by more than their seeds do."""

import math
import statistics
from collections.abc import Sequence

import numpy as np

NODES = 200  # of the quadrature; the test holds its result to published tables


def welch_p(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p-value of Welch's t-test for equal means (Welch 1947); NaN unless both have two values.

    It takes the values to be spread normally about their means, with a spread of their own on each side.
    """
    if min(len(first), len(second)) < 2:
        return math.nan
    parts = [statistics.variance(values) / len(values) for values in (first, second)]
    difference = statistics.fmean(first) - statistics.fmean(second)
    if not sum(parts):
        return 1.0 if difference == 0 else 0.0
    squares = sum(part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True))
    return t_tails(abs(difference) / math.sqrt(sum(parts)), sum(parts) ** 2 / squares)


def t_tails(t: float, freedom: float) -> float:
    """P(|T| > t) of Student's distribution with `freedom` degrees, at least 1.

    With x = sqrt(freedom) tan(angle), its density becomes a power of the cosine, whose two integrals are divided.
    """

    def integral(start: float) -> float:
        nodes, weights = np.polynomial.legendre.leggauss(NODES)
        half = (math.pi / 2 - start) / 2
        return half * float(weights @ np.cos(start + half * (nodes + 1)) ** (freedom - 1))

    return integral(math.atan(t / math.sqrt(freedom))) / integral(0.0)
