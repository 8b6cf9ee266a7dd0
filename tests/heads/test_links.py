"""Links: characters become tokens, patterns become figures, and chance comes from the same places of other texts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from minitx.config import Config, LogConfig
from minitx.config.parsing import load_config
from minitx.config.probes import read_probe
from minitx.heads.links import (
    REFERENCES,
    LinkAttention,
    attention,
    competing_links,
    measure_links,
    preferred,
    tokens_of_links,
    uniform,
)
from minitx.heads.measure import measure_probes
from minitx.heads.record import patterns
from minitx.heads.snapshots import PlacedLink
from minitx.heads.table import probes_as_text
from tests.small import Letters, small_model

TEXT = "Zoë's cat saw the dog because it barked."
PROBE = read_probe({"text": TEXT, "links": [{"from": "it", "to": "cat"}, {"from": "it", "to": "the dog"}]})


def pieces(*texts: str) -> list[bytes]:
    return [text.encode() for text in texts]


def test_a_token_belongs_to_a_span_that_it_shares_a_byte_with() -> None:
    """Also after a letter of two bytes, and where a token begins with the space before the word."""
    tokens = pieces("Zo", "ë", "'s c", "at", " saw", " the", " d", "og be", "cause", " it", " barked.")
    cat, dog = tokens_of_links(PROBE, tokens)
    assert cat == ("it → cat", range(9, 10), range(2, 4))
    assert dog == ("it → the dog", range(9, 10), range(5, 8))


def test_half_a_letter_is_a_token_too() -> None:
    split = [b"Zo", "ë".encode()[:1], "ë".encode()[1:], *pieces("'s", " cat", TEXT[9:30], "it", " barked.")]
    assert tokens_of_links(PROBE, split)[0] == ("it → cat", range(6, 7), range(4, 5))


def test_links_that_do_not_fit_the_tokens_are_left_out() -> None:
    assert tokens_of_links(PROBE, pieces("Zoë's", " cat", " saw the")) == []  # cut before "it"
    assert tokens_of_links(PROBE, pieces(TEXT)) == []  # one token for both spans
    whole = tokens_of_links(PROBE, pieces("Zoë's", " cat", " saw", " the dog because it", " barked."))
    assert [link.name for link in whole] == ["it → cat"]


def test_attention_adds_up_keys_and_averages_queries() -> None:
    pattern = np.arange(36, dtype=np.float32).reshape(1, 1, 6, 6)
    link = PlacedLink("x", range(4, 6), range(1, 3))
    assert attention(pattern, link).item() == ((25 + 26) + (31 + 32)) / 2
    assert uniform(link) == pytest.approx((2 / 5 + 2 / 6) / 2)


def test_chance_is_what_the_head_does_at_the_same_places_of_other_texts() -> None:
    model = small_model()
    others = np.random.default_rng(0).integers(0, 30, 16 * 64).astype(np.uint16)
    tokens = torch.randint(0, 30, (1, 16), generator=torch.Generator().manual_seed(1))
    link = PlacedLink("x", range(9, 11), range(3, 4))
    seen = patterns(model, tokens)[:, 0]
    [found] = measure_links(model, [link], seen, others)
    starts = np.unique(np.linspace(0, len(others) - 16, REFERENCES).astype(int))
    usual = []
    for start in starts:
        pattern = patterns(model, torch.from_numpy(others[start : start + 16].astype(np.int64))[None])[:, 0]
        usual.append([[(p[9, 3] + p[10, 3]) / 2 for p in layer] for layer in pattern])
    np.testing.assert_allclose(found.chance, np.mean(usual, axis=0), atol=1e-6)
    np.testing.assert_allclose(found.spread, np.std(usual, axis=0, ddof=1), atol=1e-6)
    np.testing.assert_allclose(found.attention, (seen[..., 9, 3] + seen[..., 10, 3]) / 2, atol=1e-6)
    [without] = measure_links(model, [link], seen, others[:10])
    assert np.isnan(without.chance).all() and not np.isnan(without.attention).any()


def link_figures(keys: range, attention: float, by_chance: float, spread: float) -> LinkAttention:
    one = np.ones((1, 1))
    return LinkAttention(PlacedLink(str(keys), range(9, 10), keys), one * attention, one * by_chance, one * spread)


@pytest.mark.parametrize(
    ("first", "second", "choice"),
    [
        ((0.6, 0.1, 0.05), (0.2, 0.1, 0.05), 0),
        ((0.2, 0.1, 0.05), (0.6, 0.1, 0.05), 1),
        ((0.6, 0.5, 0.05), (0.4, 0.1, 0.05), 1),  # the first is where this head always looks
        ((0.25, 0.1, 0.05), (0.2, 0.1, 0.05), -1),  # within the spread
        ((0.1, 0.2, 0.001), (0.0, 0.2, 0.001), -1),  # both below chance
        ((0.6, math.nan, math.nan), (0.2, math.nan, math.nan), -1),  # no chance known
    ],
)
def test_preference_is_against_chance_and_clear(
    first: tuple[float, float, float], second: tuple[float, float, float], choice: int
) -> None:
    group = [link_figures(range(1, 2), *first), link_figures(range(5, 6), *second)]
    assert preferred(group).item() == choice
    other = LinkAttention(PlacedLink("y", range(3, 4), range(1, 2)), *group[0][1:])
    assert competing_links([*group, other]) == [group]


def test_probes_with_links_and_plain_texts_are_read_and_written(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    probe = {"text": "a cat: it", "links": [{"from": "it", "to": "cat"}]}
    file.write_text(yaml.safe_dump({"log": {"probes": ["plain: {text}", "12", probe]}}), "utf-8")
    config = load_config(file)
    assert config.log.probes == ["plain: {text}", "12", probe]
    file.write_text(yaml.safe_dump(config.to_dict(), allow_unicode=True), "utf-8")
    assert load_config(file) == config
    file.write_text(yaml.safe_dump(Config().to_dict(), allow_unicode=True), "utf-8")
    assert load_config(file).log == LogConfig()


def test_the_table_of_probes_has_a_line_for_each_head_and_candidates_side_by_side() -> None:
    texts = [
        read_probe({"text": "a cat b dog it", "links": [{"from": "it", "to": "cat"}, {"from": "it", "to": "dog"}]}),
        read_probe("no links"),
    ]
    others = np.random.default_rng(0).integers(0, 30, 500).astype(np.uint16)
    found = measure_probes(small_model(), Letters(), texts, others)  # type: ignore[arg-type]
    plain = [probe.to_json() for probe in found]
    assert [probe["text"] for probe in plain] == ["a cat b dog it"]
    assert [link["distance"] for link in plain[0]["links"]] == [8, 2]
    assert plain[0]["ambiguous"][0]["candidates"] == ["it → cat", "it → dog"]
    text = probes_as_text(found)
    assert "it → cat" in text and text.count("\n0.") == 2 and text.count("\n1.") == 2
