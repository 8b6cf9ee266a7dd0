"""Welch's test: its p-values are those of closed forms, of a slow integral and of a published example."""

from __future__ import annotations

import math

import pytest

from minitx.bench.significance import t_tails, welch_p

SLEEP = (
    [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0],
    [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4],
)
"""Student's hours of sleep (1908); R's t.test gives t = -1.8608, 17.776 degrees, p = 0.07939."""


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0, 2.5, 8.0, 60.0])
def test_closed_forms(t: float) -> None:
    """Abramowitz and Stegun 26.7.3 and 26.7.4, for 1, 2 and 4 degrees of freedom."""
    sine, cosine = t / math.sqrt(4 + t * t), 2 / math.sqrt(4 + t * t)
    assert t_tails(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), abs=1e-12)
    assert t_tails(t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), abs=1e-12)
    assert t_tails(t, 4) == pytest.approx(1 - sine * (1 + cosine**2 / 2), abs=1e-12)


@pytest.mark.parametrize(
    ("t", "freedom", "p"), [(12.706, 1, 0.05), (4.604, 4, 0.01), (2.086, 20, 0.05), (2.576, 1e6, 0.01)]
)
def test_the_printed_table(t: float, freedom: float, p: float) -> None:
    assert t_tails(t, freedom) == pytest.approx(p, rel=2e-3)


@pytest.mark.parametrize("freedom", [1.3, 2.7, 17.776])
def test_a_slow_integral_of_the_density(freedom: float) -> None:
    scale = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2) / math.sqrt(freedom * math.pi)
    width = 1e-4
    inside = sum(scale * (1 + (width * (i + 0.5)) ** 2 / freedom) ** (-(freedom + 1) / 2) * width for i in range(18608))
    assert t_tails(1.8608, freedom) == pytest.approx(1 - 2 * inside, abs=1e-5)


def test_the_published_example() -> None:
    assert welch_p(*SLEEP) == pytest.approx(0.07939, abs=5e-6)
    assert welch_p(SLEEP[1], SLEEP[0]) == welch_p(*SLEEP)


def test_without_spread_or_values() -> None:
    assert math.isnan(welch_p([1.0], [1.0, 2.0]))
    assert welch_p([1.0, 1.0], [1.0, 1.0]) == 1
    assert welch_p([1.0, 1.0], [2.0, 2.0]) == 0
