"""How a model starts: with random matrices, with blocks that write nothing yet, or as a bigram model.

A transformer without blocks is a bigram model (Elhage et al. 2021): the token alone decides what comes next. So
embedding and output matrix can start with the bigrams of the training text, and the blocks learn the rest from step 1.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from minitx.data.token_files import Tokens
from minitx.model import Transformer

MAX_TOKENS = 1 << 21
"""Tokens of the training text whose bigrams are counted."""
BIAS = 0.4
"""The embedding's constant component, as a share of its other components' length."""


@torch.no_grad()
def start(model: Transformer, kind: str, tokens: Tokens) -> None:
    """Change a random model to the start `kind`: random leaves it, zero silences blocks and output, bigram counts."""
    if kind == "random":
        return
    for name, parameter in model.named_parameters():
        if name.endswith(("attention.output.weight", "feed_forward.down.weight")):
            parameter.zero_()
    if model.config.tie_embeddings:
        return
    model.embedding.weight.normal_()
    model.output.weight.zero_()
    if kind == "bigram":
        embedding, output = bigram_factors(tokens, model.vocab_size, model.config.d_model)
        model.embedding.weight.copy_(embedding)
        model.output.weight.copy_(output)


def bigram_factors(tokens: Tokens, vocab_size: int, d_model: int) -> tuple[Tensor, Tensor]:
    """Embedding E and output matrix W, both (vocab_size, d_model): W · norm(E[a]) are the logits of what follows a.

    With n(ab) the times that b follows a, and k(a) the number of different tokens that follow a, the bigram model is
    P(b | a) ∝ p(b) · (1 + n(ab) / (k(a) p(b))) (Witten and Bell 1991, method C). The logarithm of the bracket is a
    sparse matrix. Its largest singular vectors, with tokens weighted by the root of their frequency, are E and W; one
    component more, the same for all tokens, stands for log p(b). They fill half of the width. The other half of E is
    random, for words that are followed by the same words, such as names, must differ too.
    """
    row, column, times = bigrams(tokens, vocab_size)
    seen, followers = torch.bincount(row, times, vocab_size), torch.bincount(row, minlength=vocab_size)
    p = torch.bincount(column, times, vocab_size) + 0.5
    p /= p.sum()
    row_weight, column_weight = (seen + 1).sqrt()[:, None], p.sqrt()[:, None]
    ratios = torch.log1p(times / (followers[row] * p[column])) * row_weight[row, 0] * column_weight[column, 0]
    shape = (vocab_size, vocab_size)
    matrix = torch.sparse_coo_tensor(torch.stack((row, column)), ratios.float(), shape, check_invariants=False)
    width = min(d_model // 2, vocab_size)
    left, values, right = torch.svd_lowrank(matrix, q=min(width + 15, vocab_size), niter=2)
    left, right = (side[:, : width - 1] * values[: width - 1].sqrt() for side in (left, right))
    left, right = left / row_weight, right / column_weight
    length = (left.norm(dim=1) * seen).sum() / seen.sum()  # of a usual row, which the norm takes away
    constant = torch.full((vocab_size, 1), BIAS)
    scale = math.sqrt(width / (1 + BIAS**2))  # so that every row has length √d_model
    embedding = torch.cat((F.normalize(left.float()), constant), dim=1) * scale
    output = torch.cat((right.float() * length, p.log().float()[:, None] / BIAS), dim=1) / scale
    noise = F.normalize(torch.randn(vocab_size, d_model - width)) * math.sqrt(d_model - width)
    return torch.cat((embedding, noise), dim=1), F.pad(output, (0, d_model - width))


def bigrams(tokens: Tokens, vocab_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """First token, second token and times (float64) of each different pair of neighbours, each (pair)."""
    text = torch.from_numpy(np.asarray(tokens[:MAX_TOKENS]).astype(np.int64))
    pairs, times = torch.unique(text[:-1] * vocab_size + text[1:], return_counts=True)
    return pairs // vocab_size, pairs % vocab_size, times.double()
