"""One attention layer, step by step, with the real numbers of a model on a text.

`walk` runs the model up to a layer, then takes the layer apart by plain matrix products and checks at every step that
they give what the model itself computes; `as_text` prints the steps for a terminal, `as_html` as one page.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from minitx.attention import HeadAccess, MultiHeadAttention, Recorder, split
from minitx.fast.attention import causal_mask, rotate
from minitx.model import Block, Transformer
from minitx.system.errors import UserError, require

TOLERANCE = 1e-4
"""Largest difference, relative to the largest number, that rounding to float32 explains."""


@dataclass(frozen=True)
class Table:
    """Numbers of one step: a row for each label."""

    rows: list[str]
    columns: list[str]
    values: list[list[float]]
    total: int
    """Columns that there are; only the first are shown."""
    marked: int | None = None
    """The row that the text speaks of."""


@dataclass(frozen=True)
class Step:
    """One step: what happens, the shapes, the numbers, and by how much they miss what the model computed."""

    title: str
    words: str
    shape: str
    tables: list[tuple[str, Table]] = field(default_factory=list)
    checks: list[tuple[str, float]] = field(default_factory=list)
    """What was compared, and the largest difference relative to the largest number; raised if above `TOLERANCE`."""


@dataclass(frozen=True)
class Walk:
    """The steps of one layer on one text, seen from one head and one token."""

    layer: int
    head: int
    labels: list[str]
    query: int
    """The token whose row is shown."""
    steps: list[Step]


def walk(
    model: Transformer, tokens: list[int], labels: list[str], layer: int, head: int, query: int | None = None
) -> Walk:
    """Take layer `layer` apart on `tokens`, showing head `head` and token `query` (the last one).

    Raises UserError for a layer, a head or a kind of attention that cannot be shown, and AssertionError should a step
    not give what the model computes.
    """
    config = model.config
    require(0 <= layer < config.n_layer, f"There is no layer {layer}: this model has layers 0 to {config.n_layer - 1}.")
    require(0 <= head < config.n_head, f"There is no head {head}: this model has heads 0 to {config.n_head - 1}.")
    require(
        2 <= len(tokens) <= config.context_length,
        f"The text has {len(tokens)} tokens, but a walkthrough needs 2 to {config.context_length}.",
    )
    query = len(tokens) - 1 if query is None else query
    block = cast(Block, model.blocks[layer])
    attention = block.attention
    if type(attention) is not MultiHeadAttention:
        raise UserError(f"A walkthrough shows multi-head attention, but this model's is {type(attention).__name__}.")
    with torch.inference_mode():
        steps = _steps(model, block, attention, torch.tensor([tokens]), labels, layer, head, query)
    return Walk(layer, head, labels, query, steps)


def _steps(
    model: Transformer,
    block: Block,
    attention: MultiHeadAttention,
    tokens: Tensor,
    labels: list[str],
    layer: int,
    head: int,
    at: int,
) -> list[Step]:
    n_head, n_kv_head, d_head, seq = attention.n_head, attention.n_kv_head, attention.d_head, tokens.size(1)
    d_model, group = model.config.d_model, attention.n_head // attention.n_kv_head
    rotary = (model.rotary_cos[:seq], model.rotary_sin[:seq])
    residual = model.residual(tokens, last_layer=layer - 1)  # (1, seq, d_model)
    x = block.attention_norm(residual)[0]  # (seq, d_model)
    recorder = Recorder(want_shares=True)
    block_output = attention(x[None], rotary=rotary, heads=HeadAccess(recorder=recorder))[0]  # (seq, d_model)
    steps = [
        Step(
            "X: one vector per token",
            "The residual that enters the layer, each token's vector scaled to a root mean square of 1 (RMSNorm).",
            f"X: ({seq}, {d_model})  (seq, d_model)",
            [("X", _table(x, labels, "x", at))],
        )
    ]

    projected = {}  # name → (n, seq, d_head), as the heads use them
    plain = {}  # before norm and rotation
    for name, count in (("query", n_head), ("key", n_kv_head), ("value", n_kv_head)):
        weight = getattr(attention, name).weight  # (count * d_head, d_model)
        plain[name] = torch.stack([x @ weight[h * d_head : (h + 1) * d_head].T for h in range(count)])
        projected[name] = plain[name]
    checks = [
        (
            f"{name}: head by head = one product",
            _miss(plain[name], split(getattr(attention, name)(x[None]), d_head)[0]),
        )
        for name, count in (("query", n_head), ("key", n_kv_head), ("value", n_kv_head))
    ]
    kv = head // group
    shared = "" if group == 1 else f" Head {head} shares key and value {kv} with {group - 1} more (grouped queries)."
    steps.append(
        Step(
            "Each head's query, key and value",
            f"Each head multiplies X by its own slice of three matrices: what the token asks for, what it offers to be "
            f"found by, what it passes on. Shown is head {head}.{shared}",
            f"Q = X W_Q: ({n_head}, {seq}, {d_head})   K = X W_K, V = X W_V: ({n_kv_head}, {seq}, {d_head})  "
            "(head, seq, d_head)",
            [
                ("Q", _table(plain["query"][head], labels, "q", at)),
                ("K", _table(plain["key"][kv], labels, "k")),
                ("V", _table(plain["value"][kv], labels, "v")),
            ],
            checks,
        )
    )

    if attention.query_norm is not None and attention.key_norm is not None:
        projected["query"], projected["key"] = attention.query_norm(plain["query"]), attention.key_norm(plain["key"])
    query, key = (rotate(projected[name][None], rotary)[0] for name in ("query", "key"))
    lengths = [_miss(query.norm(dim=-1), projected["query"].norm(dim=-1))]
    normed = "scaled to a root mean square near 1 (query-key norm), then " if attention.query_norm is not None else ""
    steps.append(
        Step(
            "Positions",
            f"Queries and keys are {normed}turned by an angle that grows with the token's position (rotary positions), "
            "so that their products depend on the distance between two tokens.",
            f"Q: ({n_head}, {seq}, {d_head})   K: ({n_kv_head}, {seq}, {d_head})",
            [("Q", _table(query[head], labels, "q", at)), ("K", _table(key[kv], labels, "k"))],
            [("turning leaves the lengths", max(lengths))],
        )
    )

    scores = query[head] @ key[kv].T  # (query, key)
    steps.append(
        Step(
            "Scores: every query times every key",
            f"How well the query of {labels[at]!r} fits each key, as a sum of {d_head} products.",
            f"Q Kᵀ: ({seq}, {seq})  (query, key)",
            [(f"row of {labels[at]}", _row(scores[at], labels))],
            [("one score by hand", abs(float((query[head, at] * key[kv, 0]).sum() - scores[at, 0])))],
        )
    )
    scaled = scores / math.sqrt(d_head)
    steps.append(
        Step(
            "Scale",
            f"Divided by √d_head = √{d_head} = {math.sqrt(d_head):.3f}, so that their size does not grow with d_head.",
            f"Q Kᵀ / √d_head: ({seq}, {seq})",
            [(f"row of {labels[at]}", _row(scaled[at], labels))],
        )
    )
    masked = scaled.masked_fill(~causal_mask(seq, seq), float("-inf"))
    steps.append(
        Step(
            "Mask",
            "A token must not see what comes after it: those scores become -∞. "
            + ("The last token sees them all." if at == seq - 1 else f"{labels[at]!r} sees {at + 1} of {seq}."),
            f"({seq}, {seq}), {seq * (seq - 1) // 2} of {seq * seq} masked",
            [(f"row of {labels[at]}", _row(masked[at], labels))],
        )
    )
    weights = (masked - masked.max(dim=-1, keepdim=True).values).exp()
    pattern = weights / weights.sum(dim=-1, keepdim=True)
    steps.append(
        Step(
            "Softmax: scores become shares",
            f"e to the power of each score, divided by their sum: {labels[at]!r} divides its attention, 1 in all.",
            f"pattern: ({seq}, {seq}), each row sums to 1",
            [(f"row of {labels[at]}", _row(pattern[at], labels))],
            [
                ("pattern = the model's", _miss(pattern, recorder.patterns[layer][0, head])),
                ("rows sum to 1", _miss(pattern.sum(dim=-1), torch.ones(seq))),
            ],
        )
    )
    mixed = pattern @ projected["value"][kv]  # (seq, d_head)
    by_hand = sum(pattern[at, j] * projected["value"][kv, j] for j in range(seq))
    best = pattern[at].argsort(descending=True)[:3].tolist()
    told = " + ".join(f"{pattern[at, j]:.2f}·v({labels[j]})" for j in best)
    steps.append(
        Step(
            "Mix: each head's output",
            f"The values, weighted by the pattern. For {labels[at]!r}: {told}{' + …' if seq > 3 else ''}",
            f"pattern V: ({seq}, {d_head})  (seq, d_head)",
            [(f"output of head {head}", _table(mixed, labels, "o", at))],
            [
                ("sum of weighted values, one by one", _miss(cast(Tensor, by_hand), mixed[at])),
                ("output = the model's", _miss(mixed, recorder.head_outputs[layer][0, head])),
            ],
        )
    )
    outputs = recorder.head_outputs[layer][0]  # (head, seq, d_head)
    concatenated = torch.cat(list(outputs), dim=-1)  # (seq, head * d_head)
    steps.append(
        Step(
            "Concatenation",
            f"The outputs of all {n_head} heads side by side; head {head} has columns {head * d_head} to "
            f"{(head + 1) * d_head - 1}.",
            f"({seq}, {n_head} · {d_head} = {n_head * d_head})",
            [("side by side", _table(concatenated, labels, "c", at))],
            [
                (
                    f"columns of head {head} = its output",
                    _miss(concatenated[:, head * d_head : (head + 1) * d_head], mixed),
                )
            ],
        )
    )
    weight = attention.output.weight  # (d_model, head * d_head)
    shares = torch.stack([outputs[h] @ weight[:, h * d_head : (h + 1) * d_head].T for h in range(n_head)])
    output = concatenated @ weight.T
    of_token = shares[:, at]  # (head, d_model)
    table = _table(of_token, [f"head {h}" for h in range(n_head)], "y", head)
    lengths_of = "; ".join(f"head {h}: {float(of_token[h].norm()):.3g}" for h in range(n_head))
    steps.append(
        Step(
            "Output projection: one vector per token",
            f"A last matrix mixes the heads into one vector per token, which is added to the residual. Each head has "
            f"its share of it. Lengths for {labels[at]!r}: {lengths_of}; of their sum: "
            f"{float(output[at].norm()):.3g}.",
            f"Y = C W_O: ({seq}, {d_model})  (seq, d_model)",
            [("Y", _table(output, labels, "y", at)), (f"each head's share of {labels[at]}", table)],
            [
                ("sum of the heads' shares = Y", _miss(shares.sum(dim=0), output)),
                ("Y = the block's own output", _miss(output, block_output)),
                ("its fused route gives the same", _miss(output, attention(x[None], rotary=rotary)[0])),
            ],
        )
    )
    for step in steps:
        for what, miss in step.checks:
            assert miss <= TOLERANCE, f"{step.title}: {what} misses by {miss:.1e}"
    return steps


@dataclass(frozen=True)
class TwoContexts:
    """One token in two texts: the same embedding, another vector after each layer."""

    label: str
    texts: tuple[str, str]
    places: tuple[int, int]
    similarity: list[float]
    """Cosine of the token's two vectors: the embeddings, then after each block."""


def two_contexts(model: Transformer, first: list[int], second: list[int], places: tuple[int, int]) -> list[float]:
    """Cosine similarity of the residuals of two tokens, at `places` of two texts: as embedded, after each block."""
    vectors = []
    with torch.inference_mode():
        for tokens, place in ((first, places[0]), (second, places[1])):
            residual = model.embedding(torch.tensor([tokens]))
            found = [residual[0, place]]
            for layer in range(model.config.n_layer):
                residual = model.residual(residual, first_layer=layer, last_layer=layer)
                found.append(residual[0, place])
            vectors.append(torch.stack(found))
    similarity: list[float] = torch.cosine_similarity(vectors[0], vectors[1], dim=-1).tolist()
    return similarity


SHOWN = 8
"""Columns of a wide matrix that are shown."""


def _table(matrix: Tensor, rows: list[str], name: str, marked: int | None = None) -> Table:
    columns = [f"{name}{i}" for i in range(min(SHOWN, matrix.size(1)))]
    return Table(rows, columns, matrix[:, :SHOWN].tolist(), matrix.size(1), marked)


def _row(row: Tensor, labels: list[str]) -> Table:
    """One token's row, written downwards so that it fits a terminal: a line for each key."""
    return Table(labels, ["value"], row[:, None].tolist(), 1)


def _miss(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-9))
