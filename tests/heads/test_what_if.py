"""Predictions and losses without heads, against a float64 copy of the model whose output projection is cut by hand."""

from __future__ import annotations

import copy
import math
from typing import Any, cast

import numpy as np
import pytest
import torch

from minitx.config import ModelConfig
from minitx.data.tokenizer import Tokenizer
from minitx.heads.what_if import ranking, without
from minitx.latent_attention import LatentAttention
from minitx.model import Block, Transformer
from minitx.system.errors import UserError
from tests.small import Letters

TOKENS = np.random.default_rng(3).integers(0, 30, 11).tolist()
LETTERS = cast(Tokenizer, Letters())
KINDS: list[dict[str, Any]] = [
    {},
    {"n_kv_head": 1},
    {"attention": "latent"},
    {"kept_heads": [[1, 2], [0, 1, 2, 3]]},
    {"kept_heads": [[], [0, 3]]},
]


def model_of(**kind: Any) -> Transformer:
    """A model whose heads differ, still in training mode."""
    torch.manual_seed(0)
    model = Transformer(ModelConfig(n_layer=2, n_head=4, d_model=32, context_length=16, dropout=0.2, **kind), 30)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(2.0)
    return model


def cut(model: Transformer, heads: list[int], how: str) -> torch.Tensor:
    """Log probabilities (seq, vocab_size) in float64, the heads' parts of the projection's input replaced by hand."""
    reference, seen = copy.deepcopy(model).double().eval(), {}
    text = torch.tensor([TOKENS])
    attentions: dict[int, Any] = {layer: cast(Block, block).attention for layer, block in enumerate(reference.blocks)}
    projections = {layer: attention.output for layer, attention in attentions.items() if attention is not None}
    hooks = [
        projection.register_forward_pre_hook(lambda _, inputs, layer=layer: seen.update({layer: inputs[0]}))
        for layer, projection in projections.items()
    ]
    with torch.no_grad():
        reference(text)
        for hook in hooks:
            hook.remove()
        for layer, projection in projections.items():
            columns = [
                place * 8 + i
                for place, head in enumerate(model.config.heads_in(layer))
                for i in range(8)
                if layer * 4 + head in heads
            ]
            constant = projection.weight[:, columns] @ seen[layer][0, :, columns].mean(dim=0)
            projection.weight[:, columns] = 0
            if how == "mean":
                projection.register_forward_hook(lambda _, inputs, output, constant=constant: output + constant)
        return reference(text)[0].log_softmax(-1)


def loss_at(log_probabilities: torch.Tensor, position: int) -> float:
    return -float(log_probabilities[position, TOKENS[position + 1]])


@pytest.mark.parametrize("how", ["zero", "mean"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("heads", [[1, 3], [0, 1, 2, 3], [6], []])
def test_predictions_without_heads(kind: dict[str, Any], heads: list[int], how: str) -> None:
    model = model_of(**kind)
    answer = without(model, LETTERS, TOKENS, {"heads": heads, "how": how})
    for name, log_probabilities in (("before", cut(model, [], how)), ("after", cut(model, heads, how))):
        found = answer[name]
        expected = [loss_at(log_probabilities, position) for position in range(10)]
        assert found["loss"][:-1] == pytest.approx(expected, rel=1e-3, abs=1e-4) and found["loss"][-1] is None
        for position, row in enumerate(log_probabilities.exp().tolist()):
            assert found["probabilities"][position] == pytest.approx(sorted(row, reverse=True)[:5], rel=1e-3, abs=1e-5)
            assert found["tokens"][position][0] == f"<{int(np.argmax(row))}>"
    assert model.training, "the model is left as it was"


@pytest.mark.parametrize("how", ["zero", "mean"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_ranking_is_the_loss_without_each_head(kind: dict[str, Any], how: str) -> None:
    model = model_of(**kind)
    pruned = {layer * 4 + head for layer in range(2) for head in {*range(4)} - {*model.config.heads_in(layer)}}
    for places in (range(10), range(1), range(4, 7), range(9, 10)):
        answer = ranking(model, LETTERS, TOKENS, {"positions": [places.start, places.stop], "how": how})
        for head, found in enumerate([*answer["without"], answer["loss"]]):
            log_probabilities = cut(model, [head] if head < 8 else [], how)
            expected = sum(loss_at(log_probabilities, place) for place in places)
            assert math.isnan(found) if head in pruned else found == pytest.approx(expected, abs=1e-3)


def test_it_says_what_it_cannot_answer() -> None:
    model = model_of()
    with pytest.raises(UserError, match="There is no head 8: the last one is 7"):
        without(model, LETTERS, TOKENS, {"heads": [0, 8], "how": "zero"})
    with pytest.raises(UserError, match="No token follows position 10: the last one is 9"):
        ranking(model, LETTERS, TOKENS, {"positions": [9, 11], "how": "zero"})
    with pytest.raises(UserError, match="from 4 to before 4 are none"):
        ranking(model, LETTERS, TOKENS, {"positions": [4, 4], "how": "zero"})
    with pytest.raises(UserError, match="a single token"):
        ranking(model, LETTERS, TOKENS[:1], {"positions": [0, 0], "how": "zero"})
    assert without(model, LETTERS, TOKENS[:1], {"heads": [0], "how": "mean"})["before"]["loss"] == [None]


def test_latent_attention_was_tried() -> None:
    assert isinstance(model_of(attention="latent").blocks[0].attention, LatentAttention)
