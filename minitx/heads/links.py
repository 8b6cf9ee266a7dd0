"""Links in probe texts: how much each head attends from a word to an earlier one, such as from "it" to "animal".

`tokens_of_links` turns a link of characters into one of tokens, and `attention` reads it from a pattern.
`measure_links` adds chance: what the same head does between the same two places of other texts.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from minitx.config.probes import Probe
from minitx.heads.record import patterns
from minitx.heads.scores import Floats
from minitx.heads.snapshots import PlacedLink
from minitx.model import Transformer

REFERENCES = 32
"""Texts that chance is averaged over."""
CLEAR = 2.0
"""A head prefers a candidate that leads the second by this many standard deviations."""


class LinkAttention(NamedTuple):
    """The attention along one link, in arrays (layer, head)."""

    link: PlacedLink
    attention: Floats
    chance: Floats
    """Mean attention of the same head between the same two places of `REFERENCES` other texts."""
    spread: Floats
    """Standard deviation over those texts; NaN for fewer than two."""


def tokens_of_links(probe: Probe, pieces: Sequence[bytes]) -> list[PlacedLink]:
    """The links of `probe` in tokens; `pieces` are the bytes of each of its tokens.

    A token belongs to a span that it shares a byte with. Links beyond the cut end of the text are dropped, and links
    whose two spans share a token.
    """
    placed = (
        PlacedLink(link.name, *(token_span(probe.text, pieces, span) for span in (link.source, link.target)))
        for link in probe.links
    )
    return [link for link in placed if link.queries and link.keys and link.keys.stop <= link.queries.start]


def token_span(text: str, pieces: Sequence[bytes], span: tuple[int, int]) -> range:
    """The tokens of `text` that share a byte with the characters of `span`; empty where the tokens end before it."""
    ends = np.cumsum([len(piece) for piece in pieces])
    starts = ends - [len(piece) for piece in pieces]
    first, last = (len(text[:at].encode()) for at in span)
    inside = np.flatnonzero((starts < last) & (ends > first))
    whole = len(inside) > 0 and last <= ends[-1]
    return range(int(inside[0]), int(inside[-1]) + 1) if whole else range(0)


def attention(pattern: NDArray[np.floating[Any]], link: PlacedLink) -> Floats:
    """The attention in patterns (…, query, key) from a query of the link to all its keys, averaged over its queries."""
    rows = pattern[..., link.queries.start : link.queries.stop, link.keys.start : link.keys.stop].astype(np.float64)
    return rows.sum(axis=-1).mean(axis=-1)


def uniform(link: PlacedLink) -> float:
    """The attention along the link of a head that spreads it evenly."""
    return float(np.mean([len(link.keys) / (query + 1) for query in link.queries]))


def measure_links(
    model: Transformer, links: Sequence[PlacedLink], pattern: NDArray[np.floating[Any]], others: NDArray[Any]
) -> list[LinkAttention]:
    """Measure `links` in a pattern (layer, head, query, key); the chance level is measured on `others`."""
    length = pattern.shape[-1]
    if not links or len(others) < length:
        unknown = np.full(pattern.shape[:2], np.nan)
        return [LinkAttention(link, attention(pattern, link), unknown, unknown) for link in links]
    starts = np.unique(np.linspace(0, len(others) - length, REFERENCES).astype(np.int64))
    windows = np.stack([others[start : start + length] for start in starts]).astype(np.int64)
    reference = patterns(model, torch.from_numpy(windows))  # (layer, batch, head, query, key)
    measured = []
    for link in links:
        usual = attention(reference, link)  # (layer, batch, head)
        spread = usual.std(axis=1, ddof=1) if len(starts) > 1 else np.full(pattern.shape[:2], np.nan)
        measured.append(LinkAttention(link, attention(pattern, link), usual.mean(axis=1), spread))
    return measured


def competing_links(links: Sequence[LinkAttention]) -> list[list[LinkAttention]]:
    """Groups of links from the same tokens, which are the candidates for what an ambiguous word belongs to."""
    groups: dict[range, list[LinkAttention]] = {}
    for link in links:
        groups.setdefault(link.link.queries, []).append(link)
    return [group for group in groups.values() if len(group) > 1]


def preferred(group: Sequence[LinkAttention]) -> NDArray[np.int64]:
    """(layer, head): the index in `group` of the candidate that each head prefers, -1 for none.

    It is the one furthest above chance, if it leads the second by `CLEAR` standard deviations of the two.
    """
    excess = np.stack([link.attention - link.chance for link in group])  # (candidate, layer, head)
    order = np.argsort(-excess, axis=0)
    best, second = (np.take_along_axis(excess, order[[rank]], axis=0)[0] for rank in (0, 1))
    variance = np.stack([link.spread**2 for link in group])
    noise = np.sqrt(sum(np.take_along_axis(variance, order[[rank]], axis=0)[0] for rank in (0, 1)))
    clear = (best > 0) & (best - second > CLEAR * noise)
    return np.where(clear, order[0], -1)
