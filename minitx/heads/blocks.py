"""One attention layer as blocks: what all its heads do at one position, from the residual to the next token.

`Blocks` takes a layer apart on a text and checks it against the model. `at` gives the numbers of one position as JSON
holds them: bounded, rounded, the tensors of every head side by side.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from minitx.data.tokenizer import Tokenizer
from minitx.heads.one_layer import LayerTensors, check, model_tensors, require_equal, require_no_tricks
from minitx.model import Block, Transformer
from minitx.system.errors import require

MAX_CELLS = 64
"""Numbers that stand for one vector. In a wider one, neighbours are averaged."""
MAX_KEYS = 32
"""Keys and values of one head: of the positions with the greatest weights, where a text has more."""
MAX_POSITIONS = 64
"""Positions that a page holds: those nearest to the chosen one, where a text has more."""
TOP = 5
"""Likeliest next tokens."""
DIGITS = 4
Vector = dict[str, Any]
"""`cells`: at most `MAX_CELLS` numbers; `length`: the Euclidean length of the whole vector."""


class Blocks:
    """One layer on one text.

    Raises UserError for a layer or a text that cannot be shown, AssertionError if a tensor is not the model's.
    """

    @torch.inference_mode()
    def __init__(self, model: Transformer, tokens: Sequence[int], layer: int) -> None:
        config, seq = model.config, len(tokens)
        last = config.n_layer - 1
        require(0 <= layer <= last, f"There is no layer {layer}: this model has layers 0 to {last}.")
        require(1 <= seq <= config.context_length, f"The text has {seq} tokens: give 1 to {config.context_length}.")
        require_no_tricks(config)
        self.model, self.layer, self.tokens, self.seq = model, layer, list(tokens), seq
        self.heads = config.heads_in(layer)
        block = cast(Block, model.blocks[layer])
        attention = block.attention
        require(attention is not None, f"Layer {layer} has no heads left: pruning removed them all.")
        assert attention is not None
        rotary = (model.rotary_cos[:seq], model.rotary_sin[:seq])
        self.before = model.residual(torch.tensor([tokens]), last_layer=layer - 1)[0]  # (seq, d_model)
        x = block.attention_norm(self.before)  # (seq, d_model)
        self.tensors = LayerTensors(attention, x, rotary)
        self.after = self.before + self.tensors.output  # (seq, d_model)
        self.after_layer = self.after + block.feed_forward(block.feed_forward_norm(self.after))  # (seq, d_model)
        self.final = model.residual(self.after_layer[None], first_layer=layer + 1)[0]  # (seq, d_model)
        require(
            bool(self.final.isfinite().all()),
            "The numbers of this model are not finite: it diverged, so take an earlier step.",
        )
        theirs = model_tensors(attention, x, rotary)
        whole = model.residual(torch.tensor([tokens]), last_layer=layer)[0]
        require_equal(
            f"layer {layer}",
            [
                *(check(name, getattr(self.tensors, name), theirs[name]) for name in theirs if name != "fused"),
                check("output on the fused route", self.tensors.output, theirs["fused"]),
                check("sum of the shares", self.tensors.shares.sum(dim=0), self.tensors.output),
                check("residual after the layer", self.after_layer, whole),
            ],
        )

    @torch.inference_mode()
    def at(self, position: int, text_of: Callable[[int], str]) -> dict[str, Any]:
        """The numbers of one position; `text_of` gives the label of a token. Raises UserError for no such position.

        x: the normed residual that enters the heads. heads: one entry each, see `_head`. sum: of all heads' shares.
        before, after: the residual without and with that sum. after_layer: with the feed-forward layer's output, too.
        predictions: the likeliest next tokens read off the residual (logit lens, nostalgebraist 2020) before the heads,
        after them, after the layer, and at the end of the model. averaged: the numbers that share a cell.
        """
        last = self.seq - 1
        require(0 <= position <= last, f"There is no position {position}: the text has positions 0 to {last}.")
        tensors, d_model, d_head = self.tensors, self.before.size(1), self.tensors.mixed.size(2)
        residuals = {"before": self.before, "after": self.after, "after_layer": self.after_layer, "final": self.final}
        return {
            "layer": self.layer,
            "position": position,
            "d_model": d_model,
            "d_head": d_head,
            "averaged": {"d_model": per_cell(d_model), "d_head": per_cell(d_head)},
            "x": vector(tensors.x[position]),
            "heads": [self._head(index, position) for index in range(len(self.heads))],
            "sum": vector(tensors.output[position]),
            **{name: vector(residual[position]) for name, residual in residuals.items() if name != "final"},
            "predictions": {name: self._likeliest(residual[position], text_of) for name, residual in residuals.items()},
        }

    def _head(self, index: int, position: int) -> dict[str, Any]:
        """What a head does at a position.

        query, and the keys and values of the positions `read`, are as they meet: normed and turned by their positions.
        scores and pattern: one for each position up to this one. output: its mix of values. share: its output times its
        slice of the output projection.
        """
        tensors, kv_head = self.tensors, self.tensors.kv_head[index]
        pattern = tensors.pattern[index, position, : position + 1]  # (key)
        read = pattern.topk(min(MAX_KEYS, position + 1)).indices.sort().values.tolist()
        return {
            "head": self.heads[index],
            "kv_head": kv_head,
            "query": vector(tensors.turned_query[index, position]),
            "scores": rounded(tensors.scaled[index, position, : position + 1]),
            "pattern": rounded(pattern),
            "read": read,
            "keys": [vector(tensors.turned_key[kv_head, key]) for key in read],
            "values": [vector(tensors.value[kv_head, key]) for key in read],
            "output": vector(tensors.mixed[index, position]),
            "share": vector(tensors.shares[index, position]),
        }

    def _likeliest(self, residual: Tensor, text_of: Callable[[int], str]) -> dict[str, list[Any]]:
        """The likeliest next tokens if the model ended at `residual` (d_model), as labels, and their probabilities."""
        probabilities = self.model.unembed(residual).softmax(dim=-1)  # (vocab_size)
        values, tokens = probabilities.topk(min(TOP, probabilities.size(0)))
        return {
            "tokens": [text_of(token) for token in tokens.tolist()],
            "probabilities": [round(value, 6) for value in values.tolist()],
        }


def answer(model: Transformer, tokenizer: Tokenizer, tokens: list[int], request: dict[str, Any]) -> dict[str, Any]:
    """The question "blocks" of the Attention tab: one `layer`, seen from one `position`."""
    return Blocks(model, tokens, request["layer"]).at(request["position"], tokenizer.token_text)


def page_data(blocks: Blocks, text_of: Callable[[int], str], head: int, position: int) -> dict[str, Any]:
    """What a page of one layer shows: the answers for many positions, opening with `head` of the layer at `position`.

    keys and values stand once for each key-value head and position; the answers leave theirs out.
    """
    first = max(0, min(position - MAX_POSITIONS // 2, blocks.seq - MAX_POSITIONS))
    tensors, n_head = blocks.tensors, blocks.model.config.n_head
    answers = [blocks.at(place, text_of) for place in range(first, min(blocks.seq, first + MAX_POSITIONS))]
    for one in answers:
        one["heads"] = [
            {name: value for name, value in h.items() if name not in ("keys", "values")} for h in one["heads"]
        ]
    return {
        "tokens": [text_of(token) for token in blocks.tokens],
        "heads": n_head,
        "head": blocks.layer * n_head + head,
        "position": position,
        "keys": [[vector(key) for key in keys] for keys in tensors.turned_key],
        "values": [[vector(value) for value in values] for values in tensors.value],
        "answers": answers,
    }


def vector(values: Tensor) -> Vector:
    """A vector (width) as cells, with its length."""
    cells = [part.mean() for part in values.split(per_cell(values.size(0)))]
    return {"cells": rounded(torch.stack(cells)), "length": round(float(values.norm()), DIGITS)}


def per_cell(width: int) -> int:
    """Neighbouring numbers of a vector that share a cell."""
    return -(-width // MAX_CELLS)


def rounded(values: Tensor) -> list[float]:
    """Numbers of a vector for JSON."""
    return [round(value, DIGITS) for value in values.tolist()]
