"""What a model does with texts, as a snapshot that the viewer shows: for training, for own texts, for HTML files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from minitx import snapshots
from minitx.heads import patterns
from minitx.model import Transformer
from minitx.snapshots import Link, Probe
from minitx.tokenizer import Tokenizer

Scores = Mapping[str, NDArray[np.floating[Any]]]


def probe_of(
    model: Transformer, tokenizer: Tokenizer, text: str, tokens: Sequence[int], links: Sequence[Link] = ()
) -> Probe:
    """The pattern of every head on `tokens` of `text`, of which the model sees the first `context_length`."""
    seen = list(tokens)[: model.config.context_length]
    labels = [tokenizer.token_text(token) for token in seen]
    return Probe(text, labels, patterns(model, torch.tensor([seen]))[:, 0], links)


def text_snapshot(model: Transformer, tokenizer: Tokenizer, texts: Sequence[str], step: int) -> bytes:
    """A snapshot with a probe for each text; the end-of-document token stands for a text that is empty."""
    encoded = [tokenizer.encode(text) or [tokenizer.end_of_document] for text in texts]
    return snapshots.encode(
        step, [probe_of(model, tokenizer, text, tokens) for text, tokens in zip(texts, encoded, strict=True)]
    )
