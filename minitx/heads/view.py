"""Snapshots for the Attention tab: what the heads of a model do on a run's probes, or on another text."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from minitx.config import Probe
from minitx.data.token_files import Tokens
from minitx.data.tokenizer import Tokenizer
from minitx.heads import snapshots
from minitx.heads.links import tokens_of_links
from minitx.heads.record import Precision, Scored, patterns, score_text, scored_text
from minitx.heads.snapshots import PlacedLink, ShownProbe
from minitx.model import Transformer

IMPORTANCE_TOKENS = 24
"""Tokens of each text used to measure importance. Of equally many tokens, more but shorter texts rank the heads better
(docs/notes.md)."""


@dataclass(frozen=True)
class View(Scored):
    """The scores of the heads on a text, and their patterns on probes."""

    probes: list[ShownProbe]

    def snapshot(self, step: int, run: str = "") -> bytes:
        """The view as the bytes of a snapshot; `run` is the `snapshots.run_id`."""
        names = np.char.replace(self.roles().names, "_", " ").tolist()
        return snapshots.encode(step, self.probes, self.scores, self.chance, names, run)


def view_probes(
    model: Transformer,
    tokenizer: Tokenizer,
    probes: Sequence[Probe],
    tokens: Tokens,
    precision: Precision = nullcontext,
) -> View:
    """The patterns on `probes`, each cut at the context length, and the scores on the start of `tokens`.

    `precision` makes the context that scores are computed in, such as that of training; patterns are in float32.
    """
    scored = score_text(model, scored_text(model, tokens), importance_tokens=IMPORTANCE_TOKENS, precision=precision)
    return View(scored.scores, scored.chance, [show_probe(model, tokenizer, probe) for probe in probes])


def show_probe(model: Transformer, tokenizer: Tokenizer, probe: Probe) -> ShownProbe:
    """The patterns on a probe, cut at the context length, with the links that its tokens hold."""
    tokens = tokenizer.encode(probe.text)[: model.config.context_length]
    links = tokens_of_links(probe, [tokenizer.token_bytes(token) for token in tokens])
    return probe_of(model, tokenizer, probe.text, tokens, links)


def probe_of(
    model: Transformer, tokenizer: Tokenizer, text: str, tokens: Sequence[int], links: Sequence[PlacedLink] = ()
) -> ShownProbe:
    """The pattern of every head on the first `context_length` of `tokens`, which are those of `text`."""
    tokens = list(tokens)[: model.config.context_length]
    labels = [tokenizer.token_text(token) for token in tokens]
    return ShownProbe(text, labels, patterns(model, torch.tensor([tokens]))[:, 0], links)


def text_snapshot(
    model: Transformer, tokenizer: Tokenizer, texts: Sequence[tuple[str, Sequence[int]]], step: int
) -> bytes:
    """A snapshot with a probe for each text and its tokens; a single text comes with its scores and importance."""
    probes = [probe_of(model, tokenizer, text, tokens) for text, tokens in texts]
    if len(texts) > 1:
        return snapshots.encode(step, probes)
    tokens = torch.tensor([list(texts[0][1])[: model.config.context_length]])  # (1, seq)
    scored = score_text(model, tokens, probes[0].patterns[:, None], importance_tokens=tokens.size(1))
    return View(scored.scores, scored.chance, probes).snapshot(step)
