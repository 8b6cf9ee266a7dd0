"""What the weights alone say of a head: how much it copies, and which earlier heads it reads.

Elhage et al. 2021 (A Mathematical Framework for Transformer Circuits) take a head as two products of its weights.
W_Qᵀ W_K compares what two tokens hold. W_O W_V is what the head writes for a token that it attends to. Weights of the
norms are folded in. Left out is what depends on the text: the scale of every norm, and rotary positions.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from minitx.attention import Attention, MultiHeadAttention
from minitx.config import ModelConfig
from minitx.heads.scores import Floats
from minitx.latent_attention import LatentAttention
from minitx.model import Block, Transformer

KINDS = ("Q", "K", "V")
"""By which of its three inputs a head reads another: query, key or value."""


class Circuits(NamedTuple):
    """The weights of all heads that a model has, in float64 on the CPU; latent keys and queries are wider."""

    places: list[tuple[int, int]]
    """Layer and head of each."""
    query: Tensor
    """(head, width, d_model)"""
    key: Tensor
    """(head, width, d_model)"""
    value: Tensor
    """(head, d_head, d_model)"""
    output: Tensor
    """(head, d_model, d_head)"""


class Composition(NamedTuple):
    """How much a head reads what an earlier one wrote."""

    kind: str
    """One of `KINDS`."""
    head: int
    """The earlier head: layer * n_head + head."""
    value: float
    """See `composition`."""


@torch.no_grad()
def circuits(model: Transformer) -> Circuits:
    """The weights of every head, with the weights of all norms on the way folded in."""
    places, parts = [], []
    for layer, block in enumerate(cast("Sequence[Block]", model.blocks)):
        if block.attention is None:
            continue
        places += [(layer, head) for head in block.attention.heads]
        query, key, value = _inputs(block.attention, model.config)
        norm = block.attention_norm.weight
        output = block.attention.output.weight.unflatten(1, (-1, model.config.d_head)).transpose(0, 1)
        parts.append((query * norm, key * norm, value * norm, output))
    return Circuits(places, *(torch.cat(kind).cpu().double() for kind in zip(*parts, strict=True)))


def _inputs(attention: Attention, config: ModelConfig) -> tuple[Tensor, Tensor, Tensor]:
    """The query, key and value weights of a layer's heads, each (head, width, d_model).

    A latent head unfolds its key and value from the compressed vector, so its weights are products of two. Its rotary
    components come after its other ones.
    """
    if isinstance(attention, LatentAttention):
        compress = attention.compress.weight  # (d_latent, d_model)
        if attention.latent_norm is not None:
            compress = attention.latent_norm.weight[:, None] * compress
        shared = attention.rotary_key.weight.expand(attention.n_head, -1, -1)  # (head, d_rotary, d_model)
        query = attention.query.weight.unflatten(0, (attention.n_head, -1))
        key, value = (
            unfold.weight.unflatten(0, (attention.n_head, -1)) @ compress for unfold in (attention.key, attention.value)
        )
        return query, torch.cat((key, shared), dim=1), value
    assert isinstance(attention, MultiHeadAttention)
    query, key, value = (
        projection.weight.unflatten(0, (-1, config.d_head))
        for projection in (attention.query, attention.key, attention.value)
    )
    if attention.query_norm is not None and attention.key_norm is not None:
        query, key = attention.query_norm.weight[:, None] * query, attention.key_norm.weight[:, None] * key
    kv_heads = config.kv_heads_in(attention.layer)
    served_by = [kv_heads.index(head * config.kv_heads // config.n_head) for head in attention.heads]
    return query, key[served_by], value[served_by]


@torch.no_grad()
def copying(model: Transformer) -> Floats:
    """(layer, head): Σ λ / Σ |λ| over the eigenvalues λ of W_U W_O W_V W_E, from -1 to 1 (Elhage et al. 2021).

    That matrix (vocab_size, vocab_size) says how much attending to one token raises the logit of another. Its diagonal
    is the token itself, so positive eigenvalues copy. W_V W_E W_U W_O, (d_head, d_head), has the same ones but for
    zeros. The logits are taken relative to their mean over the vocabulary, since only that changes a prediction. NaN
    for pruned heads, and for heads that write nothing.
    """
    heads, scores = circuits(model), np.full((model.config.n_layer, model.config.n_head), np.nan)
    unembedding = model.output.weight * model.final_norm.weight  # (vocab_size, d_model)
    through = (model.embedding.weight.T @ (unembedding - unembedding.mean(dim=0))).cpu().double()  # W_E W_U
    small = heads.value @ through @ heads.output  # (head, d_head, d_head)
    finite = small.isfinite().all(dim=(1, 2))
    eigenvalues = torch.linalg.eigvals(torch.where(finite[:, None, None], small, 0))  # (head, d_head)
    share = eigenvalues.sum(dim=1).real / eigenvalues.abs().sum(dim=1)
    scores[tuple(zip(*heads.places, strict=True))] = share.numpy()
    return scores


@torch.no_grad()
def composition(model: Transformer, readers: Sequence[tuple[int, int]] | None = None) -> dict[str, Floats]:
    """How much a head B reads what head A of an earlier layer wrote, by each of `KINDS`: kind → (B, A).

    Heads count layer * n_head + head. With M the weights that B reads by, W_Q W_Kᵀ for "Q", its transpose for "K" and
    W_O W_V for "V", it is |M W_O W_V| / (|M| |W_O W_V|) in Frobenius norms (Elhage et al. 2021), less `by_chance`. NaN
    where A is not earlier, was pruned or writes nothing. `readers` are the layer and head of every B that is asked for,
    by default all.
    """
    config, heads = model.config, circuits(model)
    writes = heads.output @ _root(heads.value)  # (head, d_model, width)
    reads = {
        "Q": _root(heads.key).mT @ heads.query,
        "K": _root(heads.query).mT @ heads.key,
        "V": _root(heads.output.mT).mT @ heads.value,
    }  # (head, width, d_model)
    count = config.n_layer * config.n_head
    found = {kind: np.full((count, count), np.nan) for kind in KINDS}
    for row, (layer, head) in enumerate(heads.places):
        earlier = [column for column, (below, _) in enumerate(heads.places) if below < layer]
        if not earlier or (readers is not None and (layer, head) not in readers):
            continue
        columns = [below * config.n_head + number for below, number in heads.places[: len(earlier)]]
        for kind, read in reads.items():
            lengths = _length(read[row]) * _length(writes[: len(earlier)])
            share = _length(read[row] @ writes[: len(earlier)]) / lengths - by_chance(config)
            found[kind][layer * config.n_head + head, columns] = share.numpy()
    return found


def by_chance(config: ModelConfig) -> float:
    """1 / √d_model: the composition of matrices of any shape and size whose directions are random.

    Exactly, the root of the mean square over all rotations of one against the other.
    """
    return float(config.d_model**-0.5)


def strongest(found: dict[str, Floats], head: int, count: int = 1) -> list[Composition]:
    """The `count` greatest entries of `composition` that `head` reads by, from the greatest down; fewer if unknown."""
    known = [
        Composition(kind, earlier, float(value))
        for kind, values in found.items()
        for earlier, value in enumerate(values[head])
        if np.isfinite(value)
    ]
    return sorted(known, key=lambda entry: -entry.value)[:count]


def _root(weight: Tensor) -> Tensor:
    """A narrow matrix L with L Lᵀ = W Wᵀ for W (head, width, d_model): |X W| is |X L| for every X."""
    return cast(Tensor, torch.linalg.qr(weight.mT, mode="r").R.mT)


def _length(matrix: Tensor) -> Tensor:
    return cast(Tensor, torch.linalg.matrix_norm(matrix))
