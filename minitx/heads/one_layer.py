"""One attention layer by plain matrix products, every tensor named, and the same from the model to compare with.

`LayerTensors` is the arithmetic, to be read from top to bottom.
"""

import math

import torch
from torch import Tensor

from minitx.attention import HeadAccess, MultiHeadAttention, Recorder
from minitx.fast.attention import causal_mask, rotate

Rotary = tuple[Tensor, Tensor]


class LayerTensors:
    """The tensors of one layer on one text, computed head by head in the order of the attributes."""

    def __init__(self, attention: MultiHeadAttention, x: Tensor, rotary: Rotary) -> None:
        """x: (seq, d_model), the normed residual that enters the layer."""
        seq, d_head, heads = len(x), attention.d_head, range(attention.n_head)
        group = attention.n_head // attention.n_kv_head  # heads that read the same keys and values
        self.kv_head = kv = [head // group for head in heads]
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


def model_tensors(attention: MultiHeadAttention, x: Tensor, rotary: Rotary) -> dict[str, Tensor]:
    """What the model itself computes on x, by the names in `LayerTensors`; "fused" is its output on that route."""
    recorder = Recorder(want_shares=True)
    output = attention(x[None], rotary=rotary, heads=HeadAccess(recorder=recorder))[0]
    projected = {name: getattr(attention, name)(x[None])[0] for name in ("query", "key", "value")}
    return {
        **{name: whole.unflatten(1, (-1, attention.d_head)).swapaxes(0, 1) for name, whole in projected.items()},
        "pattern": recorder.patterns[attention.layer][0],
        "mixed": recorder.head_outputs[attention.layer][0],
        "shares": recorder.shares[attention.layer][0],
        "output": output,
        "fused": attention(x[None], rotary=rotary)[0],
    }
