"""What if: the predictions of a model without some of its heads, and which head matters at some positions.

A head that is taken out writes nothing ("zero"), or its mean output on the same text at every token ("mean"). With the
mean, only what it does by reacting to its input is gone.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minitx.attention import HeadAccess, Recorder
from minitx.data.tokenizer import Tokenizer
from minitx.heads.importance import token_losses
from minitx.heads.predictions import predict_next
from minitx.model import Transformer
from minitx.system.errors import require


def without(model: Transformer, tokenizer: Tokenizer, tokens: list[int], request: dict[str, Any]) -> dict[str, Any]:
    """The predictions on a text before and after `request["heads"]` (layer * n_head + head) are taken out."""
    text = torch.tensor([tokens])
    with torch.inference_mode():
        means = mean_outputs(model, text) if request["how"] == "mean" else None
        access = HeadAccess(gates_without(model, [request["heads"]]), stand_in=means)
        before = predict_next(model, tokenizer, tokens, model.residual(text)[0])
        after = predict_next(model, tokenizer, tokens, model.residual(text, heads=access)[0])
    return {"before": before, "after": after}


def ranking(model: Transformer, tokenizer: Tokenizer, tokens: list[int], request: dict[str, Any]) -> dict[str, Any]:
    """The loss of a text as it is and without each head: the sum over the span `request["positions"]`, in nats.

    The loss at a position is that of the token after it. A pruned head has NaN.
    """
    (start, end), config = request["positions"], model.config
    require(len(tokens) > 1, "The text has a single token, so nothing follows that could be predicted.")
    last = len(tokens) - 2
    require(end <= last + 1, f"No token follows position {end - 1}: the last one is {last}.")
    require(start < end, f"The positions from {start} to before {end} are none.")
    text, targets = torch.tensor([tokens]), torch.tensor([tokens[1:]])

    def losses(residual: Tensor) -> list[float]:
        wanted = residual[:, start:end]  # (batch, place, d_model)
        return token_losses(model, wanted, targets[:, start:end].expand(wanted.shape[:2])).sum(dim=1).tolist()

    losses_without = [float("nan")] * (config.n_layer * config.n_head)
    with torch.inference_mode():
        means = mean_outputs(model, text) if request["how"] == "mean" else None
        residual = model.embedding(text)  # (1, seq, d_model)
        for layer in range(config.n_layer):
            flat = [layer * config.n_head + head for head in config.heads_in(layer)]
            if flat:
                access = HeadAccess(gates_without(model, [[head] for head in flat]), stand_in=means)
                changed = model.residual(residual.expand(len(flat), -1, -1), heads=access, first_layer=layer)
                for head, loss in zip(flat, losses(changed), strict=True):
                    losses_without[head] = loss
            residual = model.residual(residual, first_layer=layer, last_layer=layer)
        return {"loss": losses(residual)[0], "without": losses_without}


def gates_without(model: Transformer, heads: Sequence[Sequence[int]]) -> Tensor:
    """Gates (layer, batch, head): 0 for the flat `heads` of each row, else 1; raises UserError for one that is none."""
    layers, n_head = model.config.n_layer, model.config.n_head
    gates = torch.ones(layers, len(heads), n_head)
    for row, chosen in enumerate(heads):
        for head in chosen:
            require(0 <= head < layers * n_head, f"There is no head {head}: the last one is {layers * n_head - 1}.")
            gates[head // n_head, row, head % n_head] = 0
    return gates


def mean_outputs(model: Transformer, text: Tensor) -> Tensor:
    """(layer, head, d_head): the mean output of each head over the tokens of `text` (1, seq); 0 for pruned heads."""
    config, recorder = model.config, Recorder()
    model.residual(text, heads=HeadAccess(recorder=recorder))
    means = torch.zeros(config.n_layer, config.n_head, config.d_head)
    for layer, outputs in recorder.head_outputs.items():  # (1, head, seq, d_head)
        means[layer, list(config.heads_in(layer))] = outputs[0].mean(dim=1)
    return means
