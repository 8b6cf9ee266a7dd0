"""One attention layer by plain matrix products, every tensor named, and each compared with what the model computes.

`LayerTensors` is the arithmetic, to be read from top to bottom. `compare` runs the model's own layer beside it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from minitx.attention import MultiHeadAttention, Recorder, causal_mask
from minitx.fast.attention import rotate

Rotary = tuple[Tensor, Tensor]


class LayerTensors:
    """The tensors of one layer on one text, computed head by head in the order of the attributes."""

    def __init__(self, attention: MultiHeadAttention, x: Tensor, rotary: Rotary) -> None:
        """x: (seq, d_model), the normed residual that enters the layer."""
        seq, d_head, heads = len(x), attention.d_head, range(attention.n_head)
        kv = [head // (attention.n_head // attention.n_kv_head) for head in heads]  # the kv_head that each head reads
        self.x = x  # (seq, d_model)

        self.query = torch.stack([x @ weight.T for weight in attention.query.weight.split(d_head)])
        self.key = torch.stack([x @ weight.T for weight in attention.key.weight.split(d_head)])
        self.value = torch.stack([x @ weight.T for weight in attention.value.weight.split(d_head)])
        # query: (head, seq, d_head); key and value: (kv_head, seq, d_head)

        self.normed_query, self.normed_key = self.query, self.key
        if attention.query_norm is not None and attention.key_norm is not None:
            self.normed_query, self.normed_key = attention.query_norm(self.query), attention.key_norm(self.key)
        self.turned_query = rotate(self.normed_query[None], rotary)[0]  # (head, seq, d_head)
        self.turned_key = rotate(self.normed_key[None], rotary)[0]  # (kv_head, seq, d_head)

        self.scores = torch.stack([self.turned_query[head] @ self.turned_key[kv[head]].T for head in heads])
        self.scaled = self.scores / math.sqrt(d_head)
        self.masked = self.scaled.masked_fill(~causal_mask(seq, seq), float("-inf"))
        exponentials = (self.masked - self.masked.amax(dim=-1, keepdim=True)).exp()
        self.pattern = exponentials / exponentials.sum(dim=-1, keepdim=True)
        # all of them (head, query, key)

        self.mixed = torch.stack([self.pattern[head] @ self.value[kv[head]] for head in heads])  # (head, seq, d_head)
        self.concatenated = torch.cat(list(self.mixed), dim=-1)  # (seq, head * d_head)
        slices = attention.output.weight.split(d_head, dim=1)  # of each head: (d_model, d_head)
        self.shares = torch.stack([self.mixed[head] @ slices[head].T for head in heads])  # (head, seq, d_model)
        self.output = self.concatenated @ attention.output.weight.T  # (seq, d_model)


class Check(NamedTuple):
    """One comparison."""

    what: str
    difference: float
    """The largest one, relative to the largest number."""


def compare(
    ours: LayerTensors, attention: MultiHeadAttention, rotary: Rotary, head: int, query: int
) -> dict[str, list[Check]]:
    """Compare with the model's own layer: step → its checks. Sums by hand are those of one head and query."""
    recorder = Recorder(want_shares=True)
    output = attention(ours.x[None], rotary=rotary, recorder=recorder)[0]
    fused_output = attention(ours.x[None], rotary=rotary)[0]
    pattern, mixed, shares = recorder.patterns[0][0], recorder.head_outputs[0][0], recorder.shares[0][0]
    kv_head, d_head = head // (attention.n_head // attention.n_kv_head), attention.d_head

    def projected(name: str) -> Check:
        whole = getattr(attention, name)(ours.x[None])[0]  # (seq, head * d_head)
        by_head = whole.unflatten(1, (-1, d_head)).swapaxes(0, 1)
        return _check(f"{name}: head by head = one product", getattr(ours, name), by_head)

    def turned(name: str) -> Check:
        before, after = getattr(ours, f"normed_{name}"), getattr(ours, f"turned_{name}")
        return _check(f"{name}: turning leaves the lengths", after.norm(dim=-1), before.norm(dim=-1))

    row_by_hand = (ours.turned_query[head, query] * ours.turned_key[kv_head]).sum(dim=-1)  # (key)
    mix_by_hand = (ours.pattern[head, query, :, None] * ours.value[kv_head]).sum(dim=0)  # (d_head)
    columns = ours.concatenated[:, head * d_head : (head + 1) * d_head]
    return {
        "projections": [projected("query"), projected("key"), projected("value")],
        "positions": [turned("query"), turned("key")],
        "scores": [_check("one row by hand", row_by_hand, ours.scores[head, query])],
        "softmax": [
            _check("pattern = the model's", ours.pattern, pattern),
            _check("rows sum to 1", ours.pattern.sum(dim=-1), torch.ones(pattern.shape[:2])),
        ],
        "mix": [
            _check("sum of weighted values, one by one", mix_by_hand, ours.mixed[head, query]),
            _check("output = the model's", ours.mixed, mixed),
        ],
        "concatenation": [_check(f"columns of head {head} = its output", columns, mixed[head])],
        "output": [
            _check("each head's share = the model's", ours.shares, shares),
            _check("sum of the heads' shares = Y", ours.shares.sum(dim=0), ours.output),
            _check("Y = the block's own output", ours.output, output),
            _check("its fused route gives the same", ours.output, fused_output),
        ],
    }


def _check(what: str, ours: Tensor, theirs: Tensor) -> Check:
    return Check(what, float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-9)))
