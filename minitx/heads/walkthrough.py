"""One attention layer, step by step, with the real numbers of a model on a text.

`walk` computes the layer by plain products (`one_layer`), puts it into words and checks every step against the model.
`walkthrough_page` prints the steps for a terminal or as one page.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor

from minitx.attention import MultiHeadAttention
from minitx.heads.one_layer import Check, LayerTensors, check, model_tensors, require_equal, require_no_tricks
from minitx.model import Block, Transformer
from minitx.system.errors import UserError, require

MAX_SHOWN = 8
"""Columns of a wide matrix that are shown."""


class Table(NamedTuple):
    """Numbers of one step: a row for each label."""

    caption: str
    rows: list[str]
    columns: list[str]
    values: list[list[float]]
    total: int
    """Columns of the whole matrix, of which the first are shown."""
    marked: int | None = None
    """The row that the text speaks of."""


class Step(NamedTuple):
    """One step: what happens, the shapes, the numbers, and how far they are from what the model computes."""

    title: str
    words: str
    shape: str
    tables: list[Table]
    checks: Sequence[Check] = ()


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
    theirs: dict[str, Tensor]
    """Those of the model, from `model_tensors`."""
    before: Tensor
    """(seq, d_model), the residual that enters the layer."""
    projection: Tensor
    """(d_head, d_model), the head's rows of the output projection."""

    @property
    def label(self) -> str:
        """The text of the token whose row is shown."""
        return self.labels[self.query]

    @property
    def steps(self) -> list[Step]:
        """The layer in words and tables, step by step."""
        return [*self._inputs(), *self._attention(), *self._outputs()]

    def _inputs(self) -> Iterator[Step]:
        """From the residual to queries, keys and values with positions."""
        tensors, head, kv_head = self.tensors, self.head, self.tensors.kv_head[self.head]
        q_shape, k_shape, sharing = tuple(tensors.query.shape), tuple(tensors.key.shape), tensors.kv_head.count(kv_head)
        shared = f" Head {head} shares key and value {kv_head} with {sharing - 1} more (grouped queries)."
        normed = "scaled to a root mean square near 1 (query-key norm), then "
        yield Step(
            "X: one vector per token",
            "The residual that enters the layer, each token's vector scaled to a root mean square of 1 (RMSNorm).",
            f"X: {tuple(tensors.x.shape)}  (seq, d_model)",
            [self._matrix("X", tensors.x, "x", self.query)],
        )
        yield Step(
            "Each head's query, key and value",
            "Each head multiplies X by its slice of three matrices: what the token asks for, what it offers to "
            f"queries, what it passes on. Shown is head {head}.{shared if sharing > 1 else ''}",
            f"Q = X W_Q: {q_shape}   K = X W_K, V = X W_V: {k_shape}  (head, seq, d_head)",
            [
                self._matrix("Q", tensors.query[head], "q", self.query),
                self._matrix("K", tensors.key[kv_head], "k"),
                self._matrix("V", tensors.value[kv_head], "v"),
            ],
            self._as_in_model("query", "key", "value"),
        )
        q, k = tensors.turned_query, tensors.turned_key
        yield Step(
            "Positions",
            f"Queries and keys are {normed if tensors.normed_query is not tensors.query else ''}turned by an angle "
            "that grows with the token's position (rotary positions), so that their products depend on the distance "
            "between two tokens.",
            f"Q: {q_shape}   K: {k_shape}",
            [self._matrix("Q", q[head], "q", self.query), self._matrix("K", k[kv_head], "k")],
            [
                check("query lengths stay", q.norm(dim=-1), tensors.normed_query.norm(dim=-1)),
                check("key lengths stay", k.norm(dim=-1), tensors.normed_key.norm(dim=-1)),
            ],
        )

    def _attention(self) -> Iterator[Step]:
        """From scores to the pattern."""
        tensors, seq, d_head, label = self.tensors, len(self.labels), self.tensors.query.size(2), self.label
        keys = tensors.turned_key[tensors.kv_head[self.head]]
        by_hand = (tensors.turned_query[self.head, self.query] * keys).sum(dim=-1)  # (key)
        masked_query = self.query if self.query < seq - 1 else (seq - 1) // 2  # of the last token, nothing is masked
        yield Step(
            "Scores: every query times every key",
            f"How well the query of {label!r} fits each key, as a sum of {d_head} products.",
            f"Q Kᵀ: ({seq}, {seq})  (query, key)",
            [self._row(tensors.scores)],
            [check("one row by hand", by_hand, tensors.scores[self.head, self.query])],
        )
        yield Step(
            "Scale",
            f"Divided by √d_head = √{d_head} = {math.sqrt(d_head):.3f}, so that their size does not grow with d_head.",
            f"Q Kᵀ / √d_head: ({seq}, {seq})",
            [self._row(tensors.scaled)],
        )
        yield Step(
            "Mask",
            "A token must not see what comes after it: those scores become -∞. "
            f"{self.labels[masked_query]!r} sees {masked_query + 1} of {seq} tokens, and the last token sees them all.",
            f"({seq}, {seq}), {seq * (seq - 1) // 2} of {seq * seq} masked",
            [self._row(tensors.masked, masked_query)],
        )
        yield Step(
            "Softmax: scores become shares",
            f"e to the power of each score, divided by their sum: {label!r} divides its attention, 1 in all.",
            f"pattern: ({seq}, {seq}), each row sums to 1",
            [self._row(tensors.pattern)],
            [*self._as_in_model("pattern"), check("rows sum to 1", tensors.pattern.sum(dim=-1), torch.ones(1))],
        )

    def _outputs(self) -> Iterator[Step]:
        """From the pattern to what the layer adds to the residual."""
        tensors, label, (n_head, seq, d_head) = self.tensors, self.label, self.tensors.mixed.shape
        mixed, model_mixed = tensors.mixed[self.head], self.theirs["mixed"][self.head]  # (seq, d_head)
        output, shares = tensors.output, tensors.shares[:, self.query]  # (seq, d_model), (head, d_model)
        before = self.before[self.query]  # (d_model)
        pattern, values = tensors.pattern[self.head, self.query], tensors.value[tensors.kv_head[self.head]]
        by_hand = (pattern[:, None] * values).sum(dim=0)  # (d_head)
        largest = pattern.argsort(descending=True)[:3].tolist()
        terms = " + ".join(f"{pattern[key]:.2f}·v({self.labels[key]})" for key in largest)
        heads = [f"head {head}" for head in range(n_head)]
        start, stop = self.head * d_head, (self.head + 1) * d_head
        share_by_hand = (mixed[self.query, :, None] * self.projection).sum(dim=0)  # (d_model)
        yield Step(
            "Mix: each head's output",
            f"The values, weighted by the pattern. For {label!r}: {terms}{' + …' if seq > 3 else ''}",
            f"pattern V: ({seq}, {d_head})  (seq, d_head)",
            [self._matrix(f"output of head {self.head}", mixed, "o", self.query)],
            [check("weighted values by hand", by_hand, mixed[self.query]), *self._as_in_model("mixed")],
        )
        yield Step(
            "Concatenation",
            f"The outputs of all {n_head} heads side by side; head {self.head} has columns {start} to {stop - 1}.",
            f"({seq}, {n_head} · {d_head} = {n_head * d_head})",
            [self._matrix("side by side", tensors.concatenated, "c", self.query, first=start)],
            [check(f"columns of head {self.head} = the model's", tensors.concatenated[:, start:stop], model_mixed)],
        )
        yield Step(
            "Output projection: each head's share",
            f"A last matrix mixes the heads. Row c{start} of it is what the number c{start} adds to the residual. Head "
            f"{self.head} meets only rows {start} to {stop - 1}: its output times these is its share.",
            f"W_O: ({n_head * d_head}, {output.size(1)}), of each head ({d_head}, {output.size(1)})",
            [
                self._matrix(
                    f"W_O, rows of head {self.head}, {d_head} in all",
                    self.projection[:MAX_SHOWN],
                    "y",
                    rows=[f"c{row}" for row in range(start, min(stop, start + MAX_SHOWN))],
                ),
                self._matrix(f"each head's share of {label}", shares, "y", self.head, heads),
            ],
            [
                check(f"share of head {self.head} by hand", share_by_hand, shares[self.head]),
                *self._as_in_model("shares"),
            ],
        )
        yield Step(
            "Sum: what the layer's heads add to the residual",
            "The shares, added up, are the layer's output: one vector per token, which is added to the residual. "
            f"A vector's length tells how much it weighs there. Shown for {label!r}.",
            f"Y = C W_O: {tuple(output.shape)}  (seq, d_model)",
            [
                self._lengths(
                    {
                        **dict(zip(heads, shares, strict=True)),
                        "sum Y": output[self.query],
                        "residual before": before,
                        "residual after": before + output[self.query],
                    }
                )
            ],
            [
                check("sum of the heads' shares = Y", tensors.shares.sum(dim=0), output),
                *self._as_in_model("output"),
                check("Y = the model's on its fused route", output, self.theirs["fused"]),
            ],
        )

    def _as_in_model(self, *names: str) -> list[Check]:
        """The comparison of each tensor, of all heads, with the model's."""
        return [check(f"{name} = the model's", getattr(self.tensors, name), self.theirs[name]) for name in names]

    def _matrix(
        self,
        caption: str,
        matrix: Tensor,
        column: str,
        marked: int | None = None,
        rows: list[str] | None = None,
        first: int = 0,
    ) -> Table:
        """Columns of a matrix from `first` on, with a row for each token or for each of `rows`."""
        end = min(first + MAX_SHOWN, matrix.size(1))
        columns = [f"{column}{i}" for i in range(first, end)]
        return Table(caption, rows or self.labels, columns, matrix[:, first:end].tolist(), matrix.size(1), marked)

    def _lengths(self, vectors: dict[str, Tensor]) -> Table:
        """The length of each vector (d_model) and its first numbers."""
        columns = ["length", *(f"y{i}" for i in range(MAX_SHOWN - 1))]
        values = [[float(one.norm()), *one[: MAX_SHOWN - 1].tolist()] for one in vectors.values()]
        total = self.tensors.output.size(1)
        return Table(f"shares, sum and residual of {self.label}", list(vectors), columns, values, total, self.head)

    def _row(self, rows: Tensor, query: int | None = None) -> Table:
        """One token's row of (head, query, key), written downwards to fit a terminal: a line for each key."""
        query = self.query if query is None else query
        values = rows[self.head, query, :, None].tolist()
        return Table(f"row of {self.labels[query]}", self.labels, ["value"], values, 1)


def walk(
    model: Transformer, tokens: list[int], labels: list[str], layer: int, head: int, query: int | None = None
) -> Walk:
    """Take layer `layer` apart on `tokens`, showing head `head` and token `query` (the last one).

    Raises UserError for a layer, a head or a kind of attention that cannot be shown. Raises AssertionError if a step
    differs from what the model computes.
    """
    config, seq = model.config, len(tokens)
    require(0 <= layer < config.n_layer, f"There is no layer {layer}: this model has layers 0 to {config.n_layer - 1}.")
    require(0 <= head < config.n_head, f"There is no head {head}: this model has heads 0 to {config.n_head - 1}.")
    require(seq >= 2, "The text has fewer than 2 tokens, and attention has nothing to choose from: give a longer one.")
    fault = f"The text has {seq} tokens, but this model sees {config.context_length} at once: give a shorter one."
    require(seq <= config.context_length, fault)
    require(
        len(config.heads_in(layer)) == config.n_head,
        f"Layer {layer} of this model is pruned: name the run that it was pruned from.",
    )
    require_no_tricks(config)
    block = cast(Block, model.blocks[layer])
    attention = block.attention
    if type(attention) is not MultiHeadAttention:
        raise UserError(f"A walkthrough shows multi-head attention, but this model's is {type(attention).__name__}.")
    with torch.inference_mode():
        rotary = (model.rotary_cos[:seq], model.rotary_sin[:seq])
        residual = model.residual(torch.tensor([tokens]), last_layer=layer - 1)  # (1, seq, d_model)
        x = block.attention_norm(residual)[0]  # (seq, d_model)
        tensors, theirs = LayerTensors(attention, x, rotary), model_tensors(attention, x, rotary)
        projection = attention.output.weight.detach().split(attention.d_head, dim=1)[head].T  # (d_head, d_model)
    query = seq - 1 if query is None else query
    walked = Walk(layer, head, query, labels, tensors, theirs, residual[0], projection)
    for step in walked.steps:
        require_equal(step.title, step.checks)
    return walked
