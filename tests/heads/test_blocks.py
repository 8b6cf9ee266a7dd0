"""The numbers of the blocks are those of an independent computation in float64, and they stay within their bounds."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import minitx.heads.one_layer
from minitx.config import ModelConfig
from minitx.heads.blocks import MAX_CELLS, MAX_KEYS, Blocks, answer, vector
from minitx.model import Transformer
from minitx.system.errors import UserError
from tests.small import Letters

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6]
Floats = NDArray[np.float64]


def tiny(**settings: object) -> Transformer:
    """An untrained model whose norms are not all one."""
    torch.manual_seed(0)
    shape = {"n_layer": 2, "n_head": 4, "d_model": 16, "context_length": 40, **settings}
    model = Transformer(ModelConfig(**shape), 30).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.5, 1.5)
    return model


class ByHand:
    """The model in float64 with loops over heads, positions and keys; keeps each layer's intermediates."""

    def __init__(self, model: Transformer) -> None:
        self.weights = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
        self.config = model.config

    def norm(self, x: Floats, name: str) -> Floats:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.config.norm_eps) * self.weights[name]

    def turn(self, x: Floats) -> Floats:
        """Rotary positions of (seq, width), pair by pair: component i turns with component i + width / 2."""
        turned, half = x.copy(), x.shape[1] // 2
        for position in range(len(x)):
            for i in range(half):
                angle = position * self.config.rope_theta ** (-i / half)
                a, b = x[position, i], x[position, i + half]
                turned[position, i] = a * math.cos(angle) - b * math.sin(angle)
                turned[position, i + half] = b * math.cos(angle) + a * math.sin(angle)
        return turned

    def projections(self, x: Floats, layer: int, index: int) -> tuple[Floats, Floats, Floats]:
        """Query, key and value of the `index`-th head left in a layer, each (seq, width), as they meet."""
        config, at, d_head = self.config, f"blocks.{layer}.attention.", self.config.d_head
        head = config.heads_in(layer)[index]
        if config.attention == "latent":
            content, width = slice(index * d_head, (index + 1) * d_head), d_head + config.rotary_width
            latent = x @ self.weights[at + "compress.weight"].T
            if config.qk_norm:
                latent = self.norm(latent, at + "latent_norm.weight")
            query = x @ self.weights[at + "query.weight"][index * width : (index + 1) * width].T
            common = self.turn(x @ self.weights[at + "rotary_key.weight"].T)
            key = np.hstack([latent @ self.weights[at + "key.weight"][content].T, common])
            query = np.hstack([query[:, :d_head], self.turn(query[:, d_head:])])
            return query, key, latent @ self.weights[at + "value.weight"][content].T
        served = config.kv_heads_in(layer).index(head * config.kv_heads // config.n_head)
        parts = {}
        for name, place in (("query", index), ("key", served), ("value", served)):
            parts[name] = x @ self.weights[f"{at}{name}.weight"][place * d_head : (place + 1) * d_head].T
        if config.qk_norm:
            parts = {n: self.norm(p, f"{at}{n}_norm.weight") if n != "value" else p for n, p in parts.items()}
        return self.turn(parts["query"]), self.turn(parts["key"]), parts["value"]

    def run(self, tokens: list[int]) -> list[dict[str, Any]]:
        """Of each layer, its vectors by their names in the answer; the last one's "final" ends the model."""
        residual, layers, d_head = self.weights["embedding.weight"][tokens], [], self.config.d_head
        for layer in range(self.config.n_layer):
            at = f"blocks.{layer}."
            kept: dict[str, Any] = {"before": residual, "x": self.norm(residual, at + "attention_norm.weight")}
            kept["heads"], kept["sum"] = [], np.zeros_like(residual)
            for index in range(len(self.config.heads_in(layer))):
                query, key, value = self.projections(kept["x"], layer, index)
                pattern, output = np.zeros((len(tokens), len(tokens))), np.zeros((len(tokens), d_head))
                for q in range(len(tokens)):
                    terms = [math.exp(query[q] @ key[k] / math.sqrt(query.shape[1])) for k in range(q + 1)]
                    for k, term in enumerate(terms):
                        pattern[q, k] = term / sum(terms)
                        output[q] += pattern[q, k] * value[k]
                columns = self.weights[at + "attention.output.weight"][:, index * d_head : (index + 1) * d_head]
                head = {"query": query, "keys": key, "values": value, "pattern": pattern, "output": output}
                kept["heads"].append(head | {"share": output @ columns.T})
                kept["sum"] = kept["sum"] + output @ columns.T
            kept["after"] = residual + kept["sum"]
            normed = self.norm(kept["after"], at + "feed_forward_norm.weight")
            gate = normed @ self.weights[at + "feed_forward.gate.weight"].T
            up = normed @ self.weights[at + "feed_forward.up.weight"].T
            residual = (
                kept["after"] + (gate / (1 + np.exp(-gate)) * up) @ self.weights[at + "feed_forward.down.weight"].T
            )
            kept["after_layer"] = residual
            layers.append(kept)
        for kept in layers:
            kept["final"] = residual
        return layers

    def probabilities(self, residual: Floats) -> Floats:
        logits = self.norm(residual, "final_norm.weight") @ self.weights["output.weight"].T
        return np.exp(logits) / np.exp(logits).sum()


def assert_vector(shown: dict[str, Any], expected: Floats) -> None:
    assert shown["cells"] == pytest.approx(expected.tolist(), abs=2e-4)
    assert shown["length"] == pytest.approx(float(np.sqrt((expected**2).sum())), abs=3e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"n_kv_head": 2},
        {"n_kv_head": 1, "qk_norm": False},
        {"attention": "latent"},
        {"attention": "latent", "qk_norm": False, "d_latent": 6},
        {"n_kv_head": 2, "kept_heads": [[0, 1, 2, 3], [0, 2, 3]]},  # groups of one and two
        {"attention": "latent", "kept_heads": [[1], [0, 2]]},
    ],
)
@pytest.mark.parametrize(("layer", "position"), [(0, 7), (1, 4), (1, 0)])
def test_every_number_is_that_of_a_computation_by_hand(settings: dict[str, object], layer: int, position: int) -> None:
    model = tiny(**settings)
    by_hand = ByHand(model)
    expected = by_hand.run(TOKENS)[layer]
    shown = Blocks(model, TOKENS, layer).at(position, str)
    for name in ("x", "before", "after", "after_layer", "sum"):
        assert_vector(shown[name], expected[name][position])
    assert [head["head"] for head in shown["heads"]] == model.config.heads_in(layer)
    for head, theirs in zip(shown["heads"], expected["heads"], strict=True):
        for name in ("query", "output", "share"):
            assert_vector(head[name], theirs[name][position])
        assert head["pattern"] == pytest.approx(theirs["pattern"][position, : position + 1].tolist(), abs=1e-4)
        assert head["read"] == list(range(position + 1))
        for name in ("keys", "values"):
            for key, shown_key in enumerate(head[name]):
                assert_vector(shown_key, theirs[name][key])
    for name, prediction in shown["predictions"].items():
        probabilities = by_hand.probabilities(expected[name][position])
        assert prediction["tokens"] == [str(token) for token in (-probabilities).argsort()[:5]]
        assert prediction["probabilities"] == pytest.approx(np.sort(probabilities)[::-1][:5].tolist(), abs=1e-4)
    assert "NaN" not in json.dumps(shown)


def test_heads_of_a_group_say_which_keys_and_values_they_share() -> None:
    heads = Blocks(tiny(n_kv_head=2), TOKENS, 0).at(7, str)["heads"]
    assert [head["kv_head"] for head in heads] == [0, 0, 1, 1]
    assert heads[0]["values"] == heads[1]["values"] != heads[2]["values"]


def test_wide_vectors_are_averaged_and_keep_their_length() -> None:
    wide = torch.arange(100.0)
    shown = vector(wide)
    assert len(shown["cells"]) == 50 <= MAX_CELLS and shown["cells"][:2] == [0.5, 2.5]
    assert shown["length"] == pytest.approx(math.sqrt(sum(i * i for i in range(100))), rel=1e-6)
    assert Blocks(tiny(d_model=144), TOKENS, 0).at(1, str)["averaged"] == {"d_model": 3, "d_head": 1}


def test_of_a_long_text_the_keys_with_the_greatest_weights_are_read() -> None:
    tokens = [i % 30 for i in range(40)]
    head = Blocks(tiny(), tokens, 0).at(39, str)["heads"][2]
    assert len(head["pattern"]) == len(head["scores"]) == 40 and sum(head["pattern"]) == pytest.approx(1, abs=2e-3)
    assert len(head["read"]) == len(head["keys"]) == len(head["values"]) == MAX_KEYS
    assert head["read"] == sorted(head["read"])
    left_out = set(range(40)) - set(head["read"])
    assert max(head["pattern"][key] for key in left_out) <= min(head["pattern"][key] for key in head["read"])


def test_the_question_takes_a_layer_and_a_position() -> None:
    model = tiny()
    tokenizer: Any = Letters()
    shown = answer(model, tokenizer, TOKENS, {"layer": 1, "position": 3})
    assert (shown["layer"], shown["position"]) == (1, 3)
    assert shown["predictions"]["final"]["tokens"][0].startswith("<")


@pytest.mark.parametrize(
    ("settings", "tokens", "layer", "position", "sentence"),
    [
        ({}, TOKENS, 2, 0, "no layer 2: this model has layers 0 to 1"),
        ({}, TOKENS, -1, 0, "no layer -1"),
        ({}, TOKENS, 0, 8, "no position 8: the text has positions 0 to 7"),
        ({}, [], 0, 0, "0 tokens: give 1 to 40"),
        ({"kept_heads": [[0, 1], []]}, TOKENS, 1, 0, "Layer 1 has no heads left: pruning removed them all"),
    ],
)
def test_what_cannot_be_shown_ends_in_a_sentence(
    settings: dict[str, object], tokens: list[int], layer: int, position: int, sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        Blocks(tiny(**settings), tokens, layer).at(position, str)


def test_a_diverged_model_ends_in_a_sentence() -> None:
    model = tiny()
    with torch.no_grad():
        model.embedding.weight[3, 0] = float("nan")
    with pytest.raises(UserError, match="not finite"):
        Blocks(model, TOKENS, 0)


def test_a_tensor_that_is_not_the_models_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minitx.heads.one_layer, "rotate", lambda x, rotary: x)
    with pytest.raises(AssertionError, match="layer 1: pattern misses"):
        Blocks(tiny(), TOKENS, 1)
