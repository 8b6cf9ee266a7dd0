"""Copying and composition on weights made by hand, and against whole matrices in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from minitx.config import ModelConfig
from minitx.heads.circuits import by_chance, composition, copying, strongest
from minitx.model import Transformer

KINDS_OF_MODEL: dict[str, dict[str, Any]] = {
    "untied": {},
    "tied": {"tie_embeddings": True},
    "grouped": {"n_kv_head": 2},
    "plain": {"qk_norm": False},
    "latent": {"attention": "latent", "d_latent": 6},
    "pruned": {"n_kv_head": 2, "kept_heads": [[0, 2, 3], [], [1]]},
}


def model_of(**settings: Any) -> Transformer:
    """A model whose norms' weights are far from 1, so that leaving one out is seen."""
    torch.manual_seed(0)
    model = Transformer(ModelConfig(n_layer=3, n_head=4, d_model=16, context_length=32, **settings), 30).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.uniform_(0.3, 2.0)
    return model


def by_hand(model: Transformer, layer: int, head: int) -> tuple[Tensor, Tensor]:
    """W_Qᵀ W_K and W_O W_V of one head, each (d_model, d_model), in float64 and from the weights' names alone."""
    config, at = model.config, f"blocks.{layer}.attention"
    weights = {name: value.double() for name, value in model.state_dict().items()}
    kept, width = config.heads_in(layer), config.d_head
    place = kept.index(head)
    norm = torch.diag(weights[f"blocks.{layer}.attention_norm.weight"])
    output = weights[f"{at}.output.weight"][:, place * width : (place + 1) * width]
    if config.attention == "latent":
        compress = torch.diag(weights[f"{at}.latent_norm.weight"]) @ weights[f"{at}.compress.weight"]
        wide = width + config.rotary_width
        query = weights[f"{at}.query.weight"][place * wide : (place + 1) * wide]
        key = weights[f"{at}.key.weight"][place * width : (place + 1) * width] @ compress
        key = torch.cat((key, weights[f"{at}.rotary_key.weight"]))
        value = weights[f"{at}.value.weight"][place * width : (place + 1) * width] @ compress
    else:
        group = config.n_head // config.kv_heads
        kv_place = sorted({one // group for one in kept}).index(head // group)
        query = weights[f"{at}.query.weight"][place * width : (place + 1) * width]
        key = weights[f"{at}.key.weight"][kv_place * width : (kv_place + 1) * width]
        value = weights[f"{at}.value.weight"][kv_place * width : (kv_place + 1) * width]
        if config.qk_norm:
            query = torch.diag(weights[f"{at}.query_norm.weight"]) @ query
            key = torch.diag(weights[f"{at}.key_norm.weight"]) @ key
    return norm @ query.T @ key @ norm, output @ value @ norm


@pytest.mark.parametrize("settings", KINDS_OF_MODEL.values(), ids=KINDS_OF_MODEL)
def test_copying_is_that_of_the_whole_matrix_over_the_vocabulary(settings: dict[str, Any]) -> None:
    model = model_of(**settings)
    found = copying(model)
    unembedding = model.output.weight.detach().double() * model.final_norm.weight.detach().double()
    embedding = model.embedding.weight.detach().double().T  # (d_model, token)
    for layer, head in np.ndindex(3, 4):
        if head not in model.config.heads_in(layer):
            assert np.isnan(found[layer, head])
            continue
        _, written = by_hand(model, layer, head)
        logits = unembedding @ written @ embedding  # (token, attended token)
        eigenvalues = np.linalg.eigvals((logits - logits.mean(dim=0)).numpy())
        expected = eigenvalues.sum().real / np.abs(eigenvalues).sum()
        assert found[layer, head] == pytest.approx(expected, abs=1e-4)
    assert np.nanmax(np.abs(found)) > 0.1


@pytest.mark.parametrize("settings", KINDS_OF_MODEL.values(), ids=KINDS_OF_MODEL)
def test_composition_is_that_of_the_whole_matrices(settings: dict[str, Any]) -> None:
    model = model_of(**settings)
    found = composition(model)
    for reader, writer in np.ndindex(12, 12):
        (layer, head), (below, other) = divmod(reader, 4), divmod(writer, 4)
        kept = head in model.config.heads_in(layer) and other in model.config.heads_in(below)
        if below >= layer or not kept:
            assert all(np.isnan(values[reader, writer]) for values in found.values())
            continue
        (compared, moved), (_, written) = by_hand(model, layer, head), by_hand(model, below, other)
        for kind, read in (("Q", compared.T), ("K", compared), ("V", moved)):
            expected = (read @ written).norm() / (read.norm() * written.norm()) - 1 / 4
            assert found[kind][reader, writer] == pytest.approx(expected.item(), abs=1e-5)


def test_readers_limit_what_is_computed_and_change_no_figure() -> None:
    model = model_of()
    one, all_of_them = composition(model, [(2, 1)]), composition(model)
    for kind, values in one.items():
        np.testing.assert_array_equal(values[9], all_of_them[kind][9])
        assert np.isnan(np.delete(values, 9, axis=0)).all()


def made_by_hand() -> Transformer:
    """Two layers of two heads of width 4 over 8 tokens, each token a direction; heads write nothing yet."""
    config = ModelConfig(n_layer=2, n_head=2, d_model=8, context_length=8, qk_norm=False)
    model = Transformer(config, 8).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_() if parameter.dim() > 1 else parameter.fill_(1.0)
        model.embedding.weight.copy_(torch.eye(8))
        model.output.weight.copy_(torch.eye(8))
    return model


def set_weights(model: Transformer, layer: int, head: int, **weights: Tensor) -> None:
    """Set a head's `query`, `key`, `value` (d_head, d_model) or `output` (d_model, d_head)."""
    rows = slice(4 * head, 4 * head + 4)
    with torch.no_grad():
        for name, weight in weights.items():
            whole = model.get_parameter(f"blocks.{layer}.attention.{name}.weight")
            (whole[:, rows] if name == "output" else whole[rows]).copy_(weight)


def test_a_head_that_copies_scores_1_its_opposite_minus_1_and_a_silent_one_nothing() -> None:
    model, basis = made_by_hand(), torch.linalg.qr(torch.randn(8, 8))[0][:4]  # four directions at random
    set_weights(model, 0, 0, value=basis, output=basis.T)
    set_weights(model, 0, 1, value=basis, output=-basis.T)
    set_weights(model, 1, 0, value=torch.eye(4, 8), output=torch.eye(8, 4).roll(1, dims=0))  # the next token of 8
    found = copying(model)
    assert found[0] == pytest.approx([1, -1], abs=1e-5)
    assert abs(found[1, 0]) < 0.5
    assert np.isnan(found[1, 1])


def test_a_head_that_writes_one_token_whatever_it_sees_does_not_copy() -> None:
    """Its only eigenvalue is what it does to that token when it attends to that token: here, nothing."""
    model = made_by_hand()
    value = torch.zeros(4, 8)
    value[0, :3] = 1.0
    output = torch.zeros(8, 4)
    output[5, 0], output[0, 0] = 1.0, -1.0  # raises token 5 and lowers token 0, which it sees
    set_weights(model, 0, 0, value=value, output=output)
    assert copying(model)[0, 0] == pytest.approx(-1)


def test_weights_that_are_not_finite_give_nothing_and_no_fault() -> None:
    model = model_of()
    with torch.no_grad():
        model.get_parameter("blocks.1.attention.value.weight").fill_(float("nan"))
    assert np.isnan(copying(model)).any(axis=1).tolist() == [False, True, False]
    assert np.isnan(composition(model)["V"][4:8]).all() and np.isfinite(composition(model)["K"][8:, :4]).all()


def test_a_head_that_reads_exactly_where_another_wrote_is_found_by_the_right_input() -> None:
    """Head 1.1 takes its keys from the four directions that head 0.0 writes, and head 1.0 from the others."""
    model = made_by_hand()
    low, high = torch.eye(8)[:4], torch.eye(8)[4:]
    set_weights(model, 0, 0, value=low, output=low.T)
    set_weights(model, 1, 1, query=high, key=low, value=high, output=high.T)
    set_weights(model, 1, 0, query=high, key=high, value=high, output=high.T)
    found = composition(model)
    identity_pair = 1 / 2  # |P| / (|P| |P|) for a projection P on four directions
    assert found["K"][3, 0] == pytest.approx(identity_pair - 8**-0.5)
    assert found["Q"][3, 0] == found["V"][3, 0] == found["K"][2, 0] == pytest.approx(-(8**-0.5))
    assert np.isnan(found["K"][3, 1])  # head 0.1 writes nothing
    best = strongest(found, 3, 3)
    assert (best[0].kind, best[0].head) == ("K", 0) and len(best) == 3
    assert strongest(found, 0) == []


def test_chance_is_the_mean_of_random_matrices_whatever_their_shapes() -> None:
    """Within 2 %: the mean of the ratio lies just below the root of its mean square."""
    generator = torch.Generator().manual_seed(0)
    config = ModelConfig(n_layer=2, n_head=4, d_model=64, context_length=8)
    for width in (4, 16):
        a, b, c, d = (torch.randn(200, *s, generator=generator) for s in ((width, 64), (64, width), (64, 16), (16, 64)))
        read, written = b @ a, c @ d  # (200, d_model, d_model)
        norms = [m.flatten(1).norm(dim=1) for m in (read @ written, read, written)]
        assert (norms[0] / (norms[1] * norms[2])).mean().item() == pytest.approx(by_chance(config), rel=0.02)
