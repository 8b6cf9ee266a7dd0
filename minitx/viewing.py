"""What a model does with texts, as a snapshot that the viewer shows: for training, for own texts, for HTML files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from minitx import snapshots
from minitx.head_scores import SCORES, chance, roles, score_heads
from minitx.heads import patterns
from minitx.model import Transformer
from minitx.snapshots import Link, Probe
from minitx.tokenizer import Tokenizer


def probe_of(
    model: Transformer, tokenizer: Tokenizer, text: str, tokens: Sequence[int], links: Sequence[Link] = ()
) -> Probe:
    """The pattern of every head on `tokens` of `text`, of which the model sees the first `context_length`."""
    seen = list(tokens)[: model.config.context_length]
    labels = [tokenizer.token_text(token) for token in seen]
    return Probe(text, labels, patterns(model, torch.tensor([seen]))[:, 0], links)


def text_snapshot(
    model: Transformer, tokenizer: Tokenizer, texts: Sequence[tuple[str, Sequence[int]]], step: int
) -> bytes:
    """A snapshot with a probe for each text and its tokens; of one text alone with what the heads score on it."""
    probes = [probe_of(model, tokenizer, text, tokens) for text, tokens in texts]
    if len(texts) > 1:
        return snapshots.encode(step, probes)
    seen = np.array([list(texts[0][1])[: model.config.context_length]])  # (1, seq)
    scores = score_heads(probes[0].patterns[:, None], seen)
    by_chance = {name: chance(seen, name) for name in SCORES}
    return snapshots.encode(step, probes, scores, by_chance, roles(scores, by_chance))
