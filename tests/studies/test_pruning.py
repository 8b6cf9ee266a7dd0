"""A pruned model against the masked one, and the order of removal against losses with a known answer."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from minitx.attention import HeadAccess
from minitx.config import ModelConfig
from minitx.model import Transformer
from minitx.model_size import cache_bytes_per_token
from minitx.studies.pruning import (
    Head,
    choose_heads,
    greedy_order,
    heads_of,
    importance_order,
    prune,
    pruned_config,
    random_order,
    removal_loss,
)
from minitx.studies.pruning_curve import Curve, draw_curve
from minitx.system.errors import UserError
from minitx.system.runtime import choose_runtime
from tests.small import looking

VOCABULARY = 40
KINDS: dict[str, dict[str, object]] = {
    "multi-head": {},
    "without norm, tied": {"qk_norm": False, "tie_embeddings": True},
    "grouped": {"n_kv_head": 2},
    "multi-query": {"n_kv_head": 1},
    "latent": {"attention": "latent", "d_latent": 10, "d_rotary": 4},
}
GONE = {
    "one": [(1, 2)],
    "a group and a half": [(0, 0), (0, 1), (0, 3), (2, 1)],
    "a whole layer": [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (2, 3)],
}


def model_of(**settings: object) -> Transformer:
    """Every parameter random, the norms too, so that none can be mixed up unnoticed."""
    torch.manual_seed(0)
    config = ModelConfig(**{"n_layer": 3, "n_head": 4, "d_model": 32, "context_length": 16, **settings})  # type: ignore[arg-type]  # values by name
    model = Transformer(config, VOCABULARY).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def some_tokens(batch: int = 2, seq: int = 16) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (batch, seq), generator=torch.Generator().manual_seed(1))


def gates_without(gone: Collection[Head]) -> torch.Tensor:
    gates = torch.ones(3, 4)
    for layer, head in gone:
        gates[layer, head] = 0
    return gates


@pytest.mark.parametrize("gone", GONE.values(), ids=GONE)
@pytest.mark.parametrize("settings", KINDS.values(), ids=KINDS)
def test_the_pruned_model_is_the_masked_one_made_smaller(settings: dict[str, object], gone: list[Head]) -> None:
    """Also token by token from the cache; smaller in parameters, in operations, and never larger in cache."""
    model, tokens = model_of(**settings), some_tokens()
    state = torch.get_rng_state()
    smaller = prune(model, gone)
    assert torch.equal(torch.get_rng_state(), state) and not smaller.training
    masked = model(tokens, heads=HeadAccess(gates_without(gone)))
    assert (masked - model(tokens)).abs().max() > 0.01
    torch.testing.assert_close(smaller(tokens), masked, rtol=0, atol=1e-5)
    torch.testing.assert_close(smaller(tokens, heads=looking(True)), masked, rtol=0, atol=1e-5)
    cache = smaller.new_cache(2)
    cached = torch.cat([smaller(piece, cache=cache) for piece in tokens.split([5, 1, 1, 9], dim=1)], dim=1)
    torch.testing.assert_close(cached, masked, rtol=0, atol=1e-5)
    assert cache.nbytes == 2 * 16 * cache_bytes_per_token(smaller.config)
    assert cache_bytes_per_token(smaller.config) <= cache_bytes_per_token(model.config)
    operations = []
    for either in (model, smaller):
        with FlopCounterMode(display=False) as counter:
            either(tokens)
        operations.append(counter.get_total_flops())
    assert operations[1] < operations[0]
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("kind", "fewer"),
    [
        ("multi-head", 6 * 4 * 8 * 32 + 2 * 8),  # and of layer 0 the query-key norms
        ("grouped", (6 * 2 + 2 * 2) * 8 * 32 + 2 * 8),  # layer 0 loses both its groups, 1 and 2 none
        ("multi-query", (6 * 2 + 1 * 2) * 8 * 32 + 2 * 8),
        # query and output of six heads; key and value; of layer 0 compression, rotary key and norm
        ("latent", 6 * (8 + 4 + 8) * 32 + 6 * 2 * 8 * 10 + (10 + 4) * 32 + 10),
    ],
)
def test_the_projections_really_get_smaller(kind: str, fewer: int) -> None:
    model = model_of(**KINDS[kind])
    smaller = prune(model, GONE["a whole layer"])
    assert sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in smaller.parameters()) == fewer


def test_a_group_goes_with_its_last_query_head() -> None:
    model = model_of(n_kv_head=2)
    half, whole = prune(model, [(1, 2)]), prune(model, [(1, 2), (1, 3)])
    shapes = [some.get_parameter("blocks.1.attention.key.weight").shape[0] for some in (model, half, whole)]
    assert shapes == [16, 16, 8]


def test_heads_keep_their_numbers_when_pruned_again() -> None:
    model, tokens = model_of(n_kv_head=2), some_tokens()
    twice = prune(prune(model, [(0, 1), (2, 0)]), [(0, 3), (1, 1)])
    assert twice.config.kept_heads == [[0, 2], [0, 2, 3], [1, 2, 3]]
    masked = model(tokens, heads=HeadAccess(gates_without([(0, 1), (2, 0), (0, 3), (1, 1)])))
    torch.testing.assert_close(twice(tokens), masked, rtol=0, atol=1e-5)


def test_the_gates_of_a_pruned_model_are_those_of_the_heads_it_has() -> None:
    model, tokens = model_of(), some_tokens()
    once = prune(model, [(0, 1)])
    masked = model(tokens, heads=HeadAccess(gates_without([(0, 1), (0, 3)])))
    torch.testing.assert_close(once(tokens, heads=HeadAccess(gates_without([(0, 3)]))), masked, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("gone", "sentence"),
    [
        ([(0, 1)], "There is no head 0.1 to remove: the model has in layer 0 0.0, 0.2; in layer 1 none."),
        ([(0, 4)], "There is no head 0.4"),
        ([(2, 0)], "There is no head 2.0"),
        ([(-1, 0)], "There is no head -1.0"),
        ([(0, 0), (0, 0)], "There is no head 0.0"),
        ([(0, 0), (0, 2)], "All heads would go"),
    ],
)
def test_what_cannot_be_removed_is_named(gone: list[Head], sentence: str) -> None:
    config = ModelConfig(n_layer=2, n_head=4, kept_heads=[[0, 2], []])
    with pytest.raises(UserError, match=sentence.replace(".", r"\.")):
        pruned_config(config, gone)


def test_the_loss_without_heads_is_that_of_zeroed_projections() -> None:
    """Against float64, one window at a time, the heads' columns of the output projection set to 0."""
    model = model_of()
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, 16 * 3 + 6).astype(np.uint16)
    with removal_loss(model, tokens, 2, choose_runtime("cpu", "bfloat16", False, 1), "") as loss_without:
        loss = loss_without([(0, 1), (2, 3)])
    reference = model.double()
    with torch.no_grad():
        reference.get_parameter("blocks.0.attention.output.weight")[:, 8:16] = 0
        reference.get_parameter("blocks.2.attention.output.weight")[:, 24:32] = 0
        nats = []
        for start in range(0, len(tokens) - 1, 16):
            window = torch.from_numpy(tokens[start : start + 17].astype(np.int64))
            log_probabilities = reference(window[None, :-1]).log_softmax(-1)[0]
            nats += [-log_probabilities[i, target].item() for i, target in enumerate(window[1:])]
    assert loss == pytest.approx(np.mean(nats), abs=1e-6)


HEADS = [(0, 0), (0, 1), (1, 0), (1, 1)]


def made_up_loss(gone: Collection[Head]) -> float:
    """0.0 and 0.1 do the same: either can go, both cannot; 1.0 matters a little, 1.1 more."""
    return 2.0 + 0.3 * ((1, 0) in gone) + 0.5 * ((1, 1) in gone) + 5.0 * ((0, 0) in gone and (0, 1) in gone)


def test_greedy_removal_sees_that_heads_stand_in_for_each_other() -> None:
    """And the order of importance, measured once, does not: the reason that there are both."""
    assert importance_order(HEADS[::-1], made_up_loss) == [(0, 1), (0, 0), (1, 0), (1, 1)]
    assert greedy_order(HEADS, made_up_loss, 4) == [(0, 0), (1, 0), (1, 1), (0, 1)]
    assert greedy_order(HEADS, made_up_loss, 2) == [(0, 0), (1, 0)]


def test_random_orders_depend_on_the_seed_alone() -> None:
    many = [(layer, head) for layer in range(4) for head in range(4)]
    assert random_order(many, 1) == random_order(many, 1) != random_order(many, 2)
    assert sorted(random_order(many, 1)) == many == heads_of(ModelConfig())


def test_the_curve_as_table_and_picture(tmp_path: Path) -> None:
    curve = Curve(
        {"greedy": ["0.0", "0.1"]},
        {"greedy": [1.0, 1.5, 3.0]},
        [["0.0", "0.1"]] * 2,
        [[1.0, 2.0, 3.0], [1.0, 4.0, 3.0]],
    )
    assert curve.table().splitlines() == [
        "| heads removed | greedy | random (mean ± spread of 2 orders) |",
        "| ------------: | -----: | ---------------------------------: |",
        "|             0 |  1.000 |                      1.000 ± 0.000 |",
        "|             1 |  1.500 |                      3.000 ± 1.414 |",
        "|             2 |  3.000 |                      3.000 ± 0.000 |",
    ]
    one, none = (Curve(curve.orders, curve.losses, [["0.0", "0.1"]] * n, curve.random_losses[:n]) for n in (1, 0))
    assert one.table().splitlines()[3] == "|             1 |  1.500 |  2.000 |"
    assert none.table().splitlines()[3] == "|             1 |  1.500 |"
    for drawn in (curve, one, none):
        draw_curve(drawn, tmp_path / "curve.png", "title")
        assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
        (tmp_path / "curve.png").unlink()


def test_a_single_head_must_stay() -> None:
    with pytest.raises(UserError, match="single head, which must stay"):
        choose_heads([(0, 0)], 0.1, "greedy", 1, made_up_loss)
