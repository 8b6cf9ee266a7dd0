"""Starts of a model: what it predicts before its first step."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from minitx.config import ModelConfig
from minitx.model import Transformer
from minitx.training.start import bigram_factors, start

VOCAB = 12


def tiny(tie: bool = False, attention: str = "multi_head") -> Transformer:
    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_head": 2, "d_model": 16, "context_length": 8}
    return Transformer(ModelConfig(**sizes, tie_embeddings=tie, attention=attention), VOCAB)  # type: ignore[arg-type]


def text(length: int = 3000) -> np.ndarray:
    """Tokens of a chain in which each has two frequent successors."""
    random, tokens = np.random.default_rng(0), [0]
    for _ in range(length - 1):
        step = random.choice([1, 5, int(random.integers(VOCAB))], p=[0.6, 0.3, 0.1])
        tokens.append((tokens[-1] + int(step)) % VOCAB)
    return np.array(tokens, dtype=np.uint16)


def witten_bell(tokens: np.ndarray) -> np.ndarray:
    """P(next | token) of method C, counted pair by pair in float64."""
    times = np.zeros((VOCAB, VOCAB))
    for first, second in itertools.pairwise(tokens):
        times[first, second] += 1
    p = (times.sum(0) + 0.5) / (times.sum() + 0.5 * VOCAB)
    kinds = (times > 0).sum(1, keepdims=True)
    return (times + kinds * p) / (times.sum(1, keepdims=True) + kinds)


@pytest.mark.parametrize("attention", ["multi_head", "latent"])
def test_a_bigram_start_predicts_what_was_counted(attention: str) -> None:
    """Rows of equal length cannot hold every ratio, so the loss comes near that of the counts, and is not it."""
    model, tokens = tiny(attention=attention), text()
    start(model, "bigram", tokens)
    first, second = tokens[:-1].astype(np.int64), tokens[1:].astype(np.int64)
    chances = model(torch.arange(VOCAB)[:, None]).softmax(-1)[:, 0].detach().numpy()
    p = np.bincount(second, minlength=VOCAB) / len(second)
    unigram, counted = -np.log(p[second]).mean(), -np.log(witten_bell(tokens)[first, second]).mean()
    assert unigram - counted > 1
    assert -np.log(chances[first, second]).mean() < counted + 0.15 * (unigram - counted)
    given = torch.tensor([[3, 7, 0, 3, 9]])
    assert torch.equal(model(given)[0, 0], model(given)[0, 3]), "the token alone decides"


def test_tokens_followed_by_the_same_tokens_differ() -> None:
    """Names are: with equal rows no head could tell one from another."""
    tokens = np.array([0, 1, 2] * 500 + [0, 3, 2] * 500, dtype=np.uint16)
    model = tiny()
    start(model, "bigram", tokens)
    logits = model(torch.tensor([[1, 3]]))[0]
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=0.05)
    assert F.cosine_similarity(*model.embedding.weight[[1, 3]].split(1)).item() < 0.9


def test_a_token_that_never_comes_is_finite_and_unlikely() -> None:
    tokens = text()
    tokens[tokens == 5] = 4
    model = tiny()
    start(model, "bigram", tokens)
    chances = model(torch.tensor([[5, 1, 2]])).softmax(-1)
    assert chances.isfinite().all()
    assert chances[..., 5].max() < 0.01


def test_rows_of_the_embedding_have_the_length_of_the_residual() -> None:
    for vocab_size, d_model in ((VOCAB, 16), (VOCAB, 8), (300, 16)):
        embedding, output = bigram_factors(text(), vocab_size, d_model)
        assert embedding.shape == output.shape == (vocab_size, d_model)
        seen = embedding[:VOCAB].norm(dim=1)
        assert torch.allclose(seen, torch.full((VOCAB,), math.sqrt(d_model)), rtol=1e-4)


def test_a_zero_start_predicts_all_tokens_alike() -> None:
    model = tiny()
    start(model, "zero", text())
    assert not model(torch.arange(5)[None]).any()
    assert model.embedding.weight.std().item() == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("kind", ["zero", "bigram"])
def test_a_tied_model_keeps_its_embedding(kind: str) -> None:
    model, before = tiny(tie=True), tiny(tie=True)
    start(model, kind, text())
    assert torch.equal(model.embedding.weight, before.embedding.weight)
    written = [p for name, p in model.named_parameters() if name.endswith(("attention.output.weight", "down.weight"))]
    assert len(written) == 4 and not any(p.any() for p in written)


def test_a_random_start_changes_nothing() -> None:
    model, before = tiny(), tiny()
    start(model, "random", text())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True))


def test_a_model_learns_from_a_silent_start() -> None:
    """Gradients reach the first block although its outputs start at zero."""
    model = tiny()
    start(model, "bigram", text())
    for _ in range(2):
        model(torch.arange(8)[None]).logsumexp(-1).sum().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter.sub_(0.01 * parameter.grad)
    gradient = dict(model.named_parameters())["blocks.0.attention.query.weight"].grad
    assert gradient is not None and gradient.any()
