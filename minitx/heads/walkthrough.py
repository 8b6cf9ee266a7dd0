"""One attention layer, step by step, with the real numbers of a model on a text.

`walk` computes the layer by plain products (`one_layer`), checks every step against the model and puts it into words;
`walkthrough_page` prints the steps for a terminal or as one page.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from minitx.attention import MultiHeadAttention
from minitx.heads.one_layer import Check, LayerTensors, compare
from minitx.model import Block, Transformer
from minitx.system.errors import UserError, require

TOLERANCE = 1e-4
"""Largest difference, relative to the largest number, that rounding to float32 explains."""
MAX_SHOWN = 8
"""Columns of a wide matrix that are shown."""


@dataclass(frozen=True)
class Table:
    """Numbers of one step: a row for each label."""

    rows: list[str]
    columns: list[str]
    values: list[list[float]]
    total: int
    """Columns of the whole matrix, of which the first are shown."""
    marked: int | None = None
    """The row that the text speaks of."""


@dataclass(frozen=True)
class Step:
    """One step: what happens, the shapes, the numbers, and how far they are from what the model computes."""

    title: str
    words: str
    shape: str
    tables: list[tuple[str, Table]]
    checks: list[Check] = field(default_factory=list)


@dataclass(frozen=True)
class Walk:
    """One layer on one text, seen from one head and one token."""

    layer: int
    head: int
    query: int
    """The token whose row is shown."""
    labels: list[str]
    """One per token."""
    tensors: LayerTensors
    checks: dict[str, list[Check]]

    @property
    def steps(self) -> list[Step]:
        """The layer in words and tables, step by step."""
        return [*self._inputs(), *self._pattern(), *self._outputs()]

    def _inputs(self) -> list[Step]:
        """From the residual to queries, keys and values with positions."""
        tensors, head, group = self.tensors, self.head, len(self.tensors.query) // len(self.tensors.key)
        kv_head, q_shape, k_shape = head // group, tuple(tensors.query.shape), tuple(tensors.key.shape)
        shared = f" Head {head} shares key and value {kv_head} with {group - 1} more (grouped queries)."
        normed = "scaled to a root mean square near 1 (query-key norm), then "
        return [
            Step(
                "X: one vector per token",
                "The residual that enters the layer, each token's vector scaled to a root mean square of 1 (RMSNorm).",
                f"X: {tuple(tensors.x.shape)}  (seq, d_model)",
                [("X", self._matrix(tensors.x, "x", self.query))],
            ),
            Step(
                "Each head's query, key and value",
                "Each head multiplies X by its slice of three matrices: what the token asks for, what it offers to "
                f"queries, what it passes on. Shown is head {head}.{shared if group > 1 else ''}",
                f"Q = X W_Q: {q_shape}   K = X W_K, V = X W_V: {k_shape}  (head, seq, d_head)",
                [
                    ("Q", self._matrix(tensors.query[head], "q", self.query)),
                    ("K", self._matrix(tensors.key[kv_head], "k")),
                    ("V", self._matrix(tensors.value[kv_head], "v")),
                ],
                self.checks["projections"],
            ),
            Step(
                "Positions",
                f"Queries and keys are {normed if tensors.normed_query is not tensors.query else ''}turned by an angle "
                "that grows with the token's position (rotary positions), so that their products depend on the "
                "distance between two tokens.",
                f"Q: {q_shape}   K: {k_shape}",
                [
                    ("Q", self._matrix(tensors.turned_query[head], "q", self.query)),
                    ("K", self._matrix(tensors.turned_key[kv_head], "k")),
                ],
                self.checks["positions"],
            ),
        ]

    def _pattern(self) -> list[Step]:
        """From scores to the pattern."""
        tensors, seq, d_head, label = self.tensors, len(self.labels), self.tensors.query.size(2), self.label
        visible = f"{label!r} sees {self.query + 1} of {seq}."
        return [
            Step(
                "Scores: every query times every key",
                f"How well the query of {label!r} fits each key, as a sum of {d_head} products.",
                f"Q Kᵀ: ({seq}, {seq})  (query, key)",
                self._row(tensors.scores),
                self.checks["scores"],
            ),
            Step(
                "Scale",
                f"Divided by √d_head = √{d_head} = {math.sqrt(d_head):.3f}, so that their size does not grow with "
                "d_head.",
                f"Q Kᵀ / √d_head: ({seq}, {seq})",
                self._row(tensors.scaled),
            ),
            Step(
                "Mask",
                "A token must not see what comes after it: those scores become -∞. "
                + ("The last token sees them all." if self.query == seq - 1 else visible),
                f"({seq}, {seq}), {seq * (seq - 1) // 2} of {seq * seq} masked",
                self._row(tensors.masked),
            ),
            Step(
                "Softmax: scores become shares",
                f"e to the power of each score, divided by their sum: {label!r} divides its attention, 1 in all.",
                f"pattern: ({seq}, {seq}), each row sums to 1",
                self._row(tensors.pattern),
                self.checks["softmax"],
            ),
        ]

    def _outputs(self) -> list[Step]:
        """From the pattern to what the layer adds to the residual."""
        tensors, label, (n_head, seq, d_head) = self.tensors, self.label, self.tensors.mixed.shape
        pattern, shares, output = tensors.pattern[self.head, self.query], tensors.shares[:, self.query], tensors.output
        largest = pattern.argsort(descending=True)[:3].tolist()
        values = " + ".join(f"{pattern[key]:.2f}·v({self.labels[key]})" for key in largest)
        lengths = "; ".join(f"head {head}: {share.norm():.3g}" for head, share in enumerate(shares))
        first, last = self.head * d_head, (self.head + 1) * d_head - 1
        heads = [f"head {head}" for head in range(n_head)]
        return [
            Step(
                "Mix: each head's output",
                f"The values, weighted by the pattern. For {label!r}: {values}{' + …' if seq > 3 else ''}",
                f"pattern V: ({seq}, {d_head})  (seq, d_head)",
                [(f"output of head {self.head}", self._matrix(tensors.mixed[self.head], "o", self.query))],
                self.checks["mix"],
            ),
            Step(
                "Concatenation",
                f"The outputs of all {n_head} heads side by side; head {self.head} has columns {first} to {last}.",
                f"({seq}, {n_head} · {d_head} = {n_head * d_head})",
                [("side by side", self._matrix(tensors.concatenated, "c", self.query))],
                self.checks["concatenation"],
            ),
            Step(
                "Output projection: one vector per token",
                "A last matrix mixes the heads into one vector per token, which is added to the residual. Each head "
                f"has its share of it. Lengths for {label!r}: {lengths}; of their sum: "
                f"{output[self.query].norm():.3g}.",
                f"Y = C W_O: {tuple(output.shape)}  (seq, d_model)",
                [
                    ("Y", self._matrix(output, "y", self.query)),
                    (f"each head's share of {label}", self._matrix(shares, "y", self.head, heads)),
                ],
                self.checks["output"],
            ),
        ]

    @property
    def label(self) -> str:
        """The text of the token whose row is shown."""
        return self.labels[self.query]

    def _matrix(self, matrix: Tensor, name: str, marked: int | None = None, rows: list[str] | None = None) -> Table:
        """The first columns of a matrix, with a row for each token or for each of `rows`."""
        columns = [f"{name}{i}" for i in range(min(MAX_SHOWN, matrix.size(1)))]
        return Table(rows or self.labels, columns, matrix[:, :MAX_SHOWN].tolist(), matrix.size(1), marked)

    def _row(self, rows: Tensor) -> list[tuple[str, Table]]:
        """One token's row of (head, query, key), written downwards to fit a terminal: a line for each key."""
        values = rows[self.head, self.query, :, None].tolist()
        return [(f"row of {self.label}", Table(self.labels, ["value"], values, 1))]


def walk(
    model: Transformer, tokens: list[int], labels: list[str], layer: int, head: int, query: int | None = None
) -> Walk:
    """Take layer `layer` apart on `tokens`, showing head `head` and token `query` (the last one).

    Raises UserError for a layer, a head or a kind of attention that cannot be shown, and AssertionError if a step
    differs from what the model computes.
    """
    config = model.config
    require(0 <= layer < config.n_layer, f"There is no layer {layer}: this model has layers 0 to {config.n_layer - 1}.")
    require(0 <= head < config.n_head, f"There is no head {head}: this model has heads 0 to {config.n_head - 1}.")
    require(
        2 <= len(tokens) <= config.context_length,
        f"The text has {len(tokens)} tokens, but a walkthrough needs 2 to {config.context_length}.",
    )
    require(
        len(config.heads_in(layer)) == config.n_head,
        f"Layer {layer} of this model is pruned: name the run that it was pruned from.",
    )
    query = len(tokens) - 1 if query is None else query
    block = cast(Block, model.blocks[layer])
    attention = block.attention
    if type(attention) is not MultiHeadAttention:
        raise UserError(f"A walkthrough shows multi-head attention, but this model's is {type(attention).__name__}.")
    with torch.inference_mode():
        rotary = (model.rotary_cos[: len(tokens)], model.rotary_sin[: len(tokens)])
        residual = model.embedding(torch.tensor([tokens]))  # (1, seq, d_model)
        for earlier in model.blocks[:layer]:
            residual = earlier(residual, rotary, None, None, True, None)
        tensors = LayerTensors(attention, block.attention_norm(residual)[0], rotary)
        walked = Walk(layer, head, query, labels, tensors, compare(tensors, attention, rotary, head, query))
    for step in walked.steps:
        for what, difference in step.checks:
            if not difference <= TOLERANCE:  # NaN fails, too
                raise AssertionError(f"{step.title}: {what} misses by {difference:.1e}")
    return walked
