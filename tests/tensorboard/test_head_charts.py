"""Titles of probes: one for each, read off its text; and layers whose heads are all gone."""

from __future__ import annotations

import numpy as np
import pytest

from minitx.tensorboard.head_charts import TITLE, ProbeLink, probe_titles, summary_points

TALE = "One day Sara and Maya went to the park. "


@pytest.mark.parametrize(
    ("texts", "titles"),
    [
        (["the cat sat.", "rain"], ["“the cat sat.”", "“rain”"]),
        (["The animal didn't cross the street"], ["“The animal didn't cross the…”"]),
        ([TALE + "It rained.", TALE + "It snowed."], ["“… rained.”", "“… snowed.”"]),
        ([TALE + "The man ran.", TALE + "The dog ran.", "Rain"], ["“… man ran.”", "“… dog ran.”", "“Rain”"]),
        ([TALE + "End."] * 2, ["“One day Sara and Maya went to…”", "“One day Sara and Maya went to… #2”"]),
        (["and/or\nthen"], ["“and\u2215or then”"]),
        (["日" * 50], [f"“{'日' * (TITLE - 1)}…”"]),
        ([" ", "\n"], ["“”", "“ #2”"]),
    ],
)
def test_a_title_is_the_first_words_that_tell_a_text_apart(texts: list[str], titles: list[str]) -> None:
    assert probe_titles(texts) == titles


def test_texts_that_begin_like_a_longer_one_keep_their_own_title() -> None:
    titles = probe_titles([TALE + "It rained.", TALE, TALE + "It rained. It snowed.", TALE + "It rained. It snowed."])
    assert len({*titles}) == 4 and all(title.startswith("“") and title.endswith("”") for title in titles)


@pytest.mark.filterwarnings("error")
def test_layers_without_heads_have_no_points() -> None:
    """A mean over nothing would warn, and NaN would break the chart."""
    scores = {"entropy": np.array([[np.nan, np.nan], [1.0, np.nan]])}
    links = [ProbeLink("“a”", "b → a", np.full((2, 2), np.nan), 0.5)]
    tags = [point.tag for point in summary_points(scores, {"entropy": 2.0}, links)]
    entropy = [f"heads: entropy/{of}" for of in ("layer 1, highest", "layer 1, mean", "chance")]
    assert tags == [*entropy, "links in “a”/b → a, chance"]
