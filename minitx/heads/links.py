"""Links in probe texts: how much each head attends from a word to an earlier one, such as from "it" to "animal".

A link of characters becomes one of tokens (`tokens_of_links`); a pattern gives its attention (`attention`);
`measure_links` puts
beside it what the same head does between the same two places of other texts: chance for that distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from minitx.config.probes import Probe
from minitx.heads.record import patterns
from minitx.model import Transformer

Floats = NDArray[np.float64]
REFERENCES = 32
"""Texts that chance is taken from."""
CLEAR = 2.0
"""Standard deviations by which a head must tell two candidates apart before it is said to prefer one."""


class PlacedLink(NamedTuple):
    """A link in tokens: from `queries` to `keys`, all of them earlier."""

    name: str
    queries: range
    keys: range

    @property
    def spans(self) -> tuple[str, tuple[int, int], tuple[int, int]]:
        """Name, queries and keys, the spans as [start, end)."""
        return self.name, (self.queries.start, self.queries.stop), (self.keys.start, self.keys.stop)


class LinkAttention(NamedTuple):
    """One link's figures, each (layer, head)."""

    link: PlacedLink
    attention: Floats
    chance: Floats
    """Mean of the same head between the same two places of `REFERENCES` other texts."""
    spread: Floats
    """Standard deviation over those texts; NaN below two."""


def tokens_of_links(probe: Probe, pieces: Sequence[bytes]) -> list[PlacedLink]:
    """The links of `probe` whose two spans lie in tokens of their own; `pieces` are the bytes of each of its tokens.

    A token belongs to a span that it shares a byte with. Left out are links that reach behind the last token (a text is
    cut at the context length) and those whose two spans share a token.
    """
    placed = (
        PlacedLink(link.name, *(token_span(probe.text, pieces, span) for span in (link.source, link.target)))
        for link in probe.links
    )
    return [link for link in placed if link.queries and link.keys and link.keys.stop <= link.queries.start]


def token_span(text: str, pieces: Sequence[bytes], span: tuple[int, int]) -> range:
    """The tokens of `text`, of which `pieces` are the bytes, that share a byte with the characters of `span`; empty
    where the tokens end before it does."""
    ends = np.cumsum([len(piece) for piece in pieces])
    starts = ends - [len(piece) for piece in pieces]
    first, last = (len(text[:at].encode()) for at in span)
    inside = np.flatnonzero((starts < last) & (ends > first))
    whole = len(inside) > 0 and last <= ends[-1]
    return range(int(inside[0]), int(inside[-1]) + 1) if whole else range(0)


def attention(seen: NDArray[np.floating[Any]], link: PlacedLink) -> Floats:
    """Of patterns (…, query, key), the attention from each of the link's queries to all its keys, mean over queries."""
    rows = seen[..., link.queries.start : link.queries.stop, link.keys.start : link.keys.stop].astype(np.float64)
    total: Floats = rows.sum(axis=-1).mean(axis=-1)
    return total


def uniform(link: PlacedLink) -> float:
    """The attention that a head which spreads it evenly gives the link."""
    return float(np.mean([len(link.keys) / (query + 1) for query in link.queries]))


def measure_links(
    model: Transformer, links: Sequence[PlacedLink], seen: NDArray[np.floating[Any]], others: NDArray[Any]
) -> list[LinkAttention]:
    """The figures of `links` in patterns `seen` (layer, head, query, key); chance is taken from the text `others`."""
    length = seen.shape[-1]
    if not links or len(others) < length:
        nothing = np.full(seen.shape[:2], np.nan)
        return [LinkAttention(link, attention(seen, link), nothing, nothing) for link in links]
    starts = np.unique(np.linspace(0, len(others) - length, REFERENCES).astype(np.int64))
    windows = np.stack([others[start : start + length] for start in starts]).astype(np.int64)
    reference = patterns(model, torch.from_numpy(windows))  # (layer, batch, head, query, key)
    found = []
    for link in links:
        usual = attention(reference, link)  # (layer, batch, head)
        spread = usual.std(axis=1, ddof=1) if len(starts) > 1 else np.full(seen.shape[:2], np.nan)
        found.append(LinkAttention(link, attention(seen, link), usual.mean(axis=1), spread))
    return found


def competing_links(found: Sequence[LinkAttention]) -> list[list[LinkAttention]]:
    """Links from the same tokens to different ones, candidates for what an ambiguous word belongs to."""
    groups: dict[range, list[LinkAttention]] = {}
    for one in found:
        groups.setdefault(one.link.queries, []).append(one)
    return [group for group in groups.values() if len(group) > 1]


def preferred(group: Sequence[LinkAttention]) -> NDArray[np.int64]:
    """Which of the candidates each head prefers, (layer, head): its index in `group`, -1 for none.

    The one of the largest attention above chance, if that is above chance at all and leads the second by `CLEAR`
    standard deviations of the two.
    """
    excess = np.stack([one.attention - one.chance for one in group])  # (candidate, layer, head)
    order = np.argsort(-excess, axis=0)
    best, second = (np.take_along_axis(excess, order[[rank]], axis=0)[0] for rank in (0, 1))
    variance = np.stack([one.spread**2 for one in group])
    noise = np.sqrt(sum(np.take_along_axis(variance, order[[rank]], axis=0)[0] for rank in (0, 1)))
    clear = (best > 0) & (best - second > CLEAR * noise)
    return np.where(clear, order[0], -1)
