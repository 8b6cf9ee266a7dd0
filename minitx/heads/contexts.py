"""One word in two texts: the same embedding, another vector after each layer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from minitx.config.probes import find_words
from minitx.data.tokenizer import Tokenizer
from minitx.heads.links import token_span
from minitx.model import Transformer
from minitx.system.errors import require


@dataclass(frozen=True)
class TwoContexts:
    """One token in two texts."""

    label: str
    texts: tuple[str, str]
    similarity: list[float]
    """Cosine of the token's two vectors: the embeddings, then after each block."""


def compare_contexts(model: Transformer, tokenizer: Tokenizer, word: str, texts: tuple[str, str]) -> TwoContexts | None:
    """The last token of `word` in each of two texts; None where the tokenizer cuts the word differently in them.

    Raises UserError for a text that lacks the word or is too long.
    """
    encoded, positions = [], []
    for text in texts:
        tokens = tokenizer.encode(text)
        require(
            len(tokens) <= model.config.context_length,
            f"{text!r} has {len(tokens)} tokens, more than the context length {model.config.context_length}: "
            "give a shorter text.",
        )
        span = token_span(text, [tokenizer.token_bytes(token) for token in tokens], find_words(text, word))
        encoded.append(tokens)
        positions.append(span[-1])
    first, second = (tokens[at] for tokens, at in zip(encoded, positions, strict=True))
    if first != second:
        return None
    ours, theirs = (vectors_of(model, tokens, at) for tokens, at in zip(encoded, positions, strict=True))
    return TwoContexts(tokenizer.token_text(first), texts, torch.cosine_similarity(ours, theirs, dim=-1).tolist())


@torch.inference_mode()
def vectors_of(model: Transformer, tokens: list[int], position: int) -> Tensor:
    """(layer + 1, d_model): the residual of the token at `position`, as embedded and after each block."""
    residuals = [model.embedding(torch.tensor([tokens]))]
    for layer in range(model.config.n_layer):
        residuals.append(model.residual(residuals[-1], first_layer=layer, last_layer=layer))
    return torch.stack([residual[0, position] for residual in residuals])
