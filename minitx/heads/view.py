"""What a model does with texts, as a snapshot that the viewer shows: for training, for own texts, for HTML files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from minitx.config import Probe as ProbeText
from minitx.data.tokenizer import Tokenizer
from minitx.heads import snapshots
from minitx.heads.importance import gate_gradient
from minitx.heads.links import PlacedLink, tokens_of_links
from minitx.heads.record import patterns, score, scored_text
from minitx.heads.roles import roles
from minitx.heads.scores import SCORES, chance, score_heads
from minitx.heads.snapshots import ShownLink, ShownProbe
from minitx.model import Transformer

IMPORTANCE_TOKENS = 24
"""How much of each text that heads are scored on their importance is measured on. It takes a pass back as well, and of
equally many tokens more but shorter texts rank the heads better (docs/notes.md)."""

Floats = NDArray[np.float64]


class View(NamedTuple):
    """What the heads do on a run's probes, and what they score on a text of its own."""

    scores: dict[str, Floats]
    """Name → (layer, head): those of `head_scores.SCORES`, and importance."""
    chance: dict[str, float]
    """Name → what a head that spreads its attention evenly scores; NaN for importance, which knows no chance."""
    probes: list[ShownProbe]
    links: list[list[PlacedLink]]
    """Of each probe."""

    def snapshot(self, step: int) -> bytes:
        """The bytes of the snapshot that shows it; raises ValueError where there is no probe."""
        return snapshots.encode(step, self.probes, self.scores, self.chance, roles(self.scores, self.chance))


def view_probes(
    model: Transformer,
    tokenizer: Tokenizer,
    probes: Sequence[ProbeText],
    tokens: NDArray[np.unsignedinteger[Any]],
    precision: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> View:
    """Look at the heads on `probes`, each cut at the context length, and score them on the start of `tokens`.

    `precision` makes the context that scores are computed in, such as training's own; patterns that are shown are in
    float32.
    """
    text = scored_text(model, tokens)
    with precision():
        scores = score(model, text)
    with precision():  # another one, for autocast keeps weights of inference mode, which have no gradient
        scores["importance"] = gate_gradient(model, text[:, :IMPORTANCE_TOKENS])
    by_chance = {name: chance(text.numpy(), name) for name in SCORES} | {"importance": float("nan")}
    seen, placed = [], []
    for probe in probes:
        encoded = tokenizer.encode(probe.text)[: model.config.context_length]
        links = tokens_of_links(probe, [tokenizer.token_bytes(token) for token in encoded])
        seen.append(probe_of(model, tokenizer, probe.text, encoded, [ShownLink(*link.spans) for link in links]))
        placed.append(links)
    return View(scores, by_chance, seen, placed)


def probe_of(
    model: Transformer, tokenizer: Tokenizer, text: str, tokens: Sequence[int], links: Sequence[ShownLink] = ()
) -> ShownProbe:
    """The pattern of every head on `tokens` of `text`, of which the model sees the first `context_length`."""
    seen = list(tokens)[: model.config.context_length]
    labels = [tokenizer.token_text(token) for token in seen]
    return ShownProbe(text, labels, patterns(model, torch.tensor([seen]))[:, 0], links)


def text_snapshot(
    model: Transformer, tokenizer: Tokenizer, texts: Sequence[tuple[str, Sequence[int]]], step: int
) -> bytes:
    """A snapshot with a probe for each text and its tokens; of one text alone with what the heads score on it, and
    how much they matter to its own next tokens."""
    probes = [probe_of(model, tokenizer, text, tokens) for text, tokens in texts]
    if len(texts) > 1:
        return snapshots.encode(step, probes)
    seen = torch.tensor([list(texts[0][1])[: model.config.context_length]])  # (1, seq)
    scores = {**score_heads(probes[0].patterns[:, None], seen.numpy()), "importance": gate_gradient(model, seen)}
    by_chance = {name: chance(seen.numpy(), name) for name in SCORES}
    return snapshots.encode(step, probes, scores, by_chance, roles(scores, by_chance))
