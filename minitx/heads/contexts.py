"""One word in two texts: the same embedding, another vector after each layer."""

import torch
from torch import Tensor

from minitx.config.probes import find_words
from minitx.data.tokenizer import Tokenizer
from minitx.heads.links import token_span
from minitx.heads.walkthrough import Step, Table
from minitx.model import Transformer
from minitx.system.errors import require


def compare_contexts(model: Transformer, tokenizer: Tokenizer, word: str, texts: tuple[str, str]) -> list[Step]:
    """A step that compares the last token of `word` in two texts; none where the word ends in different tokens.

    Raises UserError for a text that lacks the word or is too long.
    """
    last_tokens, vectors = [], []
    for text in texts:
        tokens = tokenizer.encode(text)
        require(
            len(tokens) <= model.config.context_length,
            f"{text!r} has {len(tokens)} tokens, more than the context length {model.config.context_length}: "
            "give two shorter texts with --contexts.",
        )
        span = token_span(text, [tokenizer.token_bytes(token) for token in tokens], find_words(text, word))
        last_tokens.append(tokens[span[-1]])
        vectors.append(vectors_of(model, tokens, span[-1]))
    if last_tokens[0] != last_tokens[1]:
        return []
    cosines = torch.cosine_similarity(vectors[0], vectors[1], dim=-1)  # (layer + 1)
    places = ["embedding", *(f"after layer {layer}" for layer in range(model.config.n_layer))]
    label = tokenizer.token_text(last_tokens[0])
    seen_at = "" if label.lstrip("␣") == word else f", by its last token {label!r},"
    words = f"{word!r}{seen_at} in {texts[0]!r} and in {texts[1]!r}: one embedding, two vectors in context."
    table = Table("cosine of the two vectors (1: the same direction)", places, ["cosine"], cosines[:, None].tolist(), 1)
    return [Step("One word in two contexts", words, f"each vector: ({model.config.d_model})", [table])]


@torch.inference_mode()
def vectors_of(model: Transformer, tokens: list[int], position: int) -> Tensor:
    """(layer + 1, d_model): the residual of the token at `position`, as embedded and after each block."""
    residuals = [model.embedding(torch.tensor([tokens]))]
    for layer in range(model.config.n_layer):
        residuals.append(model.residual(residuals[-1], first_layer=layer, last_layer=layer))
    return torch.stack([residual[0, position] for residual in residuals])
