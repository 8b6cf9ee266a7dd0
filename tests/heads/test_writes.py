"""What a head writes adds up: over sources to the head, over all parts of the residual to the logits."""

from __future__ import annotations

import json
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from minitx.attention import HeadAccess, Recorder
from minitx.data.tokenizer import Tokenizer
from minitx.heads.circuits import composition, copying
from minitx.heads.writes import LIKELY, MOST, direct_effect, writes, written
from minitx.model import Block, Transformer
from minitx.system.errors import UserError
from tests.heads.test_circuits import KINDS_OF_MODEL, made_by_hand, model_of, set_weights
from tests.small import Letters

TOKENS = [3, 7, 7, 1, 22, 3, 9, 0, 14]


def ask(model: Transformer, head: int, position: int, tokens: list[int] = TOKENS) -> dict[str, Any]:
    return writes(model, cast(Tokenizer, Letters()), tokens, {"head": head, "position": position})


def centred_logits(model: Transformer) -> Tensor:
    """(seq, vocab_size), what the model says itself."""
    with torch.no_grad():
        logits = model(torch.tensor([TOKENS]))[0]
    return logits - logits.mean(dim=-1, keepdim=True)


def likely_first(model: Transformer, position: int, effect: Tensor, among: Tensor | None = None) -> list[int]:
    """The tokens that may come next, with the head or without its effect, from the one pushed up most down."""
    logits = centred_logits(model)[position]
    tokens = range(model.vocab_size) if among is None else among.tolist()
    possible = [t for t in tokens if max(logits.softmax(0)[t], (logits - effect).softmax(0)[t]) >= LIKELY]
    return sorted(possible, key=lambda token: -float(effect[token]))


@pytest.mark.parametrize("settings", KINDS_OF_MODEL.values(), ids=KINDS_OF_MODEL)
def test_embedding_heads_and_feed_forwards_add_up_to_the_logits(settings: dict[str, Any]) -> None:
    """The residual is a sum, and the frozen norm keeps it one."""
    model, text = model_of(**settings).double(), torch.tensor([TOKENS])
    fed: list[Tensor] = []
    for block in model.blocks:
        cast(Block, block).feed_forward.register_forward_hook(lambda _module, _inputs, output: fed.append(output[0]))
    with torch.no_grad():
        residual = model.residual(text)[0]
        parts = [model.embedding(text)[0], *fed]
    for position in range(len(TOKENS)):
        total = torch.stack([direct_effect(model, part[position], residual[position]) for part in parts]).sum(dim=0)
        for layer in range(3):
            for head in model.config.heads_in(layer):
                found = written(model, text[0], layer, head, position)
                torch.testing.assert_close(found.residual, residual[position])
                total = total + direct_effect(model, found.parts, found.residual).sum(dim=0)
        torch.testing.assert_close(total, centred_logits(model)[position])


@pytest.mark.parametrize("settings", KINDS_OF_MODEL.values(), ids=KINDS_OF_MODEL)
def test_sources_add_up_to_what_the_recorder_saw_the_head_write(settings: dict[str, Any]) -> None:
    """Also where a key-value head serves several heads, or pruning left groups of different sizes."""
    model, recorder = model_of(**settings), Recorder(want_shares=True)
    with torch.no_grad():
        model(torch.tensor([TOKENS]), heads=HeadAccess(recorder=recorder))
    for layer in range(3):
        for place, head in enumerate(model.config.heads_in(layer)):
            found = written(model, torch.tensor(TOKENS), layer, head, 6)
            torch.testing.assert_close(found.parts.sum(dim=0), recorder.shares[layer][0, place, 6])
            assert found.weights.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("position", [0, 4, len(TOKENS) - 1])
def test_the_answer_is_plain_sorted_and_adds_up(position: int) -> None:
    model = model_of()
    found = ask(model, 9, position)
    assert json.loads(json.dumps(found)) == found
    parts = written(model, torch.tensor(TOKENS), 2, 1, position)
    effect = direct_effect(model, parts.parts.sum(dim=0), parts.residual)
    order = likely_first(model, position, effect)
    assert position == 0 or len(order) < model.vocab_size, "all are likely, so nothing is tried"
    assert [entry["token"] for entry in found["up"]] == [f"<{t}>" for t in order if effect[t] > 0][:MOST]
    assert [entry["token"] for entry in found["down"]] == [f"<{t}>" for t in order[::-1] if effect[t] < 0][:MOST]
    assert found["up"][0]["value"] == pytest.approx(effect[order[0]].item())
    for entry in (*found["up"], *found["down"], *([found["real"]] if found["real"] else [])):
        assert len(entry["sources"]) == position + 1
        assert sum(entry["sources"]) == pytest.approx(entry["value"], abs=1e-5)
    assert [source["position"] for source in found["sources"]] == list(range(position + 1))
    assert sum(source["value"] for source in found["sources"]) == pytest.approx(found["up"][0]["value"], abs=1e-5)
    if position == 4:
        assert found["real"]["token"] == f"<{TOKENS[5]}>"
        assert found["real"]["value"] == pytest.approx(effect[TOKENS[5]].item())
    assert (found["real"] is None) == (position == len(TOKENS) - 1)
    assert found["copying"] == pytest.approx(copying(model)[2, 1])
    matrices = composition(model)
    greatest = sorted((value for kind in matrices.values() for value in kind[9, :8]), reverse=True)[:3]
    assert [read["value"] for read in found["reads"]] == pytest.approx(greatest)
    assert all(matrices[read["kind"]][9, read["head"]] == read["value"] for read in found["reads"])


def test_a_head_that_copies_pushes_up_the_token_it_attends_to_and_names_its_place() -> None:
    model = made_by_hand()
    set_weights(model, 0, 0, value=torch.eye(4, 8), output=torch.eye(8, 4))  # copies tokens 0 to 3
    found = ask(model, 0, 2, [3, 6, 6])  # all scores are 0, so attention is even: a third to each
    assert found["up"][0]["token"] == "<3>" and found["copying"] == pytest.approx(1)
    assert [source["weight"] for source in found["sources"]] == pytest.approx([1 / 3] * 3)
    # Token 3 is 8^½ long after the norm; the final norm sees the residual: token 6, and a third of token 3.
    expected = np.sqrt(8) / 3 / np.sqrt((1 + 8 / 9) / 8) * (1 - 1 / 8)
    assert [source["value"] for source in found["sources"]] == pytest.approx([expected, 0, 0], rel=1e-4)
    assert found["reads"] == []


def test_bytes_that_the_text_lacks_are_not_named_nor_counted_in_the_mean() -> None:
    """Hardly any text has them. All heads push them down, so that even what a head pushes down would be above 0."""

    class Bytes(Letters):
        byte_tokens = range(5, 30)

    model = model_of()
    found = writes(model, cast(Tokenizer, Bytes()), TOKENS, {"head": 5, "position": 8})
    trained = torch.tensor([0, 1, 2, 3, 4, 7, 9, 14, 22])
    parts = written(model, torch.tensor(TOKENS), 1, 1, 8)
    effect = direct_effect(model, parts.parts.sum(dim=0), parts.residual)
    effect = effect - effect[trained].mean()
    order = likely_first(model, 8, effect, trained)
    assert [entry["token"] for entry in found["up"]] == [f"<{t}>" for t in order if effect[t] > 0][:MOST]
    assert [entry["token"] for entry in found["down"]] == [f"<{t}>" for t in order[::-1] if effect[t] < 0][:MOST]
    assert found["up"][0]["value"] == pytest.approx(effect[order[0]].item(), abs=1e-6)
    assert sum(found["up"][0]["sources"]) == pytest.approx(found["up"][0]["value"], abs=1e-5)


def test_wrong_heads_and_positions_are_refused_in_a_sentence() -> None:
    with pytest.raises(UserError, match="12 heads, and none of number 12"):
        ask(model_of(), 12, 0)
    with pytest.raises(UserError, match="9 tokens, and none at position 9"):
        ask(model_of(), 0, 9)
    with pytest.raises(UserError, match="Layer 0 has no head 1: it was pruned"):
        ask(model_of(**KINDS_OF_MODEL["pruned"]), 1, 0)


def test_the_model_is_left_as_it_was() -> None:
    model = model_of().train()
    ask(model, 5, 3)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
