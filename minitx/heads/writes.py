"""What a head writes at one position, as tokens that it makes likelier or less likely, and from where it took that.

The residual is a sum of what the embedding, every head and every feed-forward layer wrote. With the scale of the final
norm held at that of the whole sum, the logits are a sum of the same parts. A head's part is its direct effect on the
logits: nostalgebraist's logit lens (2020) on a single head, the direct logit attribution of Elhage et al. 2021 and
Wang et al. 2022. What later layers make of it is left out.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minitx.attention import HeadAccess, Recorder
from minitx.data.tokenizer import Tokenizer
from minitx.heads.circuits import composition, copying, strongest
from minitx.model import Transformer
from minitx.system.errors import require

MOST, READS = 8, 3
"""Tokens pushed up and down that an answer names, and earlier heads that the head reads."""
LIKELY = 0.001
"""Least probability of a token that is named. What a head does to tokens that cannot come next decides nothing."""


@dataclass(frozen=True)
class Written:
    """What one head adds to the residual at one position of a text."""

    weights: Tensor
    """(source): the attention to each position up to this one."""
    parts: Tensor
    """(source, d_model): what each of them adds: attention × value × the head's slice of the output projection."""
    residual: Tensor
    """(d_model): the residual after the last block."""


def written(model: Transformer, tokens: Tensor, layer: int, head: int, position: int) -> Written:
    """Run `tokens` (seq) and split what the head writes at `position` by source; raises UserError if it was pruned."""
    config, recorder = model.config, Recorder()
    kept = config.heads_in(layer)
    require(head in kept, f"Layer {layer} has no head {head}: it was pruned.")
    place, inputs = kept.index(head), tokens[None].to(model.embedding.weight.device)
    with torch.inference_mode():
        residual = model.residual(inputs, heads=HeadAccess(recorder=recorder))[0, position]
        weights = recorder.patterns[layer][0, place, position, : position + 1]  # (source)
        values = recorder.values[layer][0]  # (kv_head, source, d_head)
        value = values[place * len(values) // len(kept), : position + 1]
        projection = model.get_parameter(f"blocks.{layer}.attention.output.weight").split(config.d_head, dim=1)[place]
        parts = weights[:, None] * value @ projection.T  # (source, d_model)
    return Written(weights, parts, residual)


@torch.no_grad()
def direct_effect(
    model: Transformer, parts: Tensor, residual: Tensor, tokens: Tensor | None = None, among: Tensor | None = None
) -> Tensor:
    """(…, token): how much the vectors (…, d_model), parts of `residual` (d_model), change the logits of `tokens`.

    Logits are taken relative to their mean over the tokens `among`: a number added to all of them changes no
    prediction. Both are all tokens by default.
    """
    rows, mean = (model.output.weight if chosen is None else model.output.weight[chosen] for chosen in (tokens, among))
    scale = (residual.square().mean() + model.config.norm_eps).rsqrt()
    return parts * scale * model.final_norm.weight @ (rows - mean.mean(dim=0)).T


def writes(model: Transformer, tokenizer: Tokenizer, tokens: list[int], request: dict[str, Any]) -> dict[str, Any]:
    """What the head `request["head"]` (layer * n_head + head) writes at `request["position"]`, as plain data.

    up, down: the `trained_tokens` that it pushes most, each with its value and the value from each source, if they are
    LIKELY with the head or without its direct effect. real: the same for the token that comes next, None at the last
    position. sources: the attention to each position, and what that adds to the first token of `up`. copying, reads:
    see `circuits`.
    """
    config = model.config
    count, (flat, position) = config.n_layer * config.n_head, (request["head"], request["position"])
    require(0 <= flat < count, f"The model has {count} heads, and none of number {flat}.")
    require(0 <= position < len(tokens), f"The text has {len(tokens)} tokens, and none at position {position}.")
    layer, head = divmod(flat, config.n_head)
    found = written(model, torch.tensor(tokens), layer, head, position)
    known = trained_tokens(model, tokenizer, tokens)
    whole = direct_effect(model, found.parts.sum(dim=0), found.residual, among=known)  # (vocab_size)
    logits = direct_effect(model, found.residual, found.residual)  # (vocab_size)
    is_likely = torch.maximum(logits.softmax(0), (logits - whole).softmax(0))[known] >= LIKELY
    order = known[is_likely][whole[known[is_likely]].argsort(descending=True, stable=True)].tolist()
    up = [token for token in order if whole[token] > 0][:MOST] or order[:1]
    down = [token for token in reversed(order) if whole[token] < 0][:MOST]
    named = [*up, *down, *tokens[position + 1 : position + 2]]
    by_source = direct_effect(model, found.parts, found.residual, torch.tensor(named), known).T  # (token, source)
    entries = [
        {"token": tokenizer.token_text(token), "value": float(whole[token]), "sources": values}
        for token, values in zip(named, by_source.tolist(), strict=True)
    ]
    return {
        "up": entries[: len(up)],
        "down": entries[len(up) : len(up) + len(down)],
        "real": entries[-1] if position + 1 < len(tokens) else None,
        "sources": [
            {"position": source, "weight": weight, "value": value}
            for source, (weight, value) in enumerate(zip(found.weights.tolist(), entries[0]["sources"], strict=True))
        ],
        "copying": float(copying(model)[layer, head]),
        "reads": [entry._asdict() for entry in strongest(composition(model, [(layer, head)]), flat, READS)],
    }


def trained_tokens(model: Transformer, tokenizer: Tokenizer, tokens: list[int]) -> Tensor:
    """All tokens but those of single bytes that the text of `tokens` lacks.

    Texts hardly have such tokens, so training only pushes them down; in the mean they would lift all others.
    """
    is_known = torch.ones(model.vocab_size, dtype=torch.bool)
    is_known[torch.tensor(list(tokenizer.byte_tokens), dtype=torch.int64)] = False
    is_known[tokens] = True
    return is_known.nonzero()[:, 0]
