"""Parameter groups, optimizers and the learning rate of a step."""

from __future__ import annotations

import pytest
import torch

from minitx.config import ModelConfig, TrainConfig
from minitx.fast.compiler import plain_adamw
from minitx.model import Transformer, next_token_loss
from minitx.training.muon import Muon
from minitx.training.optim import (
    build_optimizers,
    head_rows,
    learning_rate_factor,
    set_learning_rate,
    split_parameters,
)


def small(tie: bool = False) -> Transformer:
    torch.manual_seed(0)
    return Transformer(ModelConfig(n_layer=2, n_head=2, d_model=16, context_length=8, tie_embeddings=tie), 20)


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_every_parameter_is_in_exactly_one_group(kind: str, tie: bool) -> None:
    model = small(tie)
    optimizers = build_optimizers(model, TrainConfig(optimizer=kind))  # type: ignore[arg-type]  # a parameter
    grouped = [id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())


def test_muon_takes_the_matrices_of_the_blocks_and_only_matrices_decay() -> None:
    model = small()
    blocks, embedding, output, vectors = split_parameters(model)
    assert {id(p) for p in blocks} == {id(p) for p in model.blocks.parameters() if p.dim() == 2}
    assert [id(p) for p in embedding + output] == [id(model.embedding.weight), id(model.output.weight)]
    muon, adamw = build_optimizers(model, TrainConfig(weight_decay=0.1))
    assert [id(p) for p in muon.param_groups[0]["params"]] == [id(p) for p in blocks]
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.1, 0.1, 0.0]
    assert [id(p) for p in adamw.param_groups[2]["params"]] == [id(p) for p in vectors]


def test_muon_takes_the_heads_of_queries_and_keys_apart() -> None:
    model = small()
    names = ("attention.query.weight", "attention.key.weight")
    matrices = [p for name, p in model.named_parameters() if name.endswith(names)]
    assert {id(p): rows for p, rows in head_rows(model).items()} == {id(p): 8 for p in matrices}
    muon = build_optimizers(model, TrainConfig())[0]
    assert isinstance(muon, Muon) and len(muon.head_rows) == len(matrices) == 4


def test_the_embedding_has_a_rate_of_its_own_unless_it_is_the_output_too() -> None:
    for tie, rate in ((False, 0.02), (True, 0.005)):
        model = small(tie)
        _, adamw = build_optimizers(model, TrainConfig(learning_rate=0.005, embedding_learning_rate=0.02))
        rates = {id(p): group["lr"] for group in adamw.param_groups for p in group["params"]}
        assert rates[id(model.embedding.weight)] == rate
        assert rates[id(model.output.weight)] == rates[id(model.final_norm.weight)] == 0.005
    _, adamw = build_optimizers(small(), TrainConfig(learning_rate=0.005, embedding_learning_rate=None))
    assert {group["lr"] for group in adamw.param_groups} == {0.005}


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_a_step_changes_every_parameter_and_learns(kind: str) -> None:
    model = small()
    optimizers = build_optimizers(model, TrainConfig(optimizer=kind))  # type: ignore[arg-type]  # a parameter
    tokens = torch.randint(0, 20, (4, 8), generator=torch.Generator().manual_seed(0))
    before = {name: p.clone() for name, p in model.named_parameters()}
    losses = []
    for _ in range(10):
        loss = next_token_loss(model(tokens), tokens)
        losses.append(loss.item())
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert all(not torch.equal(before[name], p) for name, p in model.named_parameters())
    assert losses[-1] < losses[0] - 0.5


def test_adamw_is_pytorchs() -> None:
    """Its step goes around a decorator of PyTorch's."""
    ours, theirs = small(), small()
    groups = [[{"params": list(model.parameters()), "weight_decay": 0.1}] for model in (ours, theirs)]
    optimizers = [
        plain_adamw(groups[0], lr=0.01, betas=(0.8, 0.9), fused=True),
        torch.optim.AdamW(groups[1], lr=0.01, betas=(0.8, 0.9), fused=True),
    ]
    tokens = torch.arange(8)[None]
    for _ in range(3):
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            next_token_loss(model(tokens), tokens).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert all(torch.equal(p, q) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert not any(p.grad is not None or p.grad_fn for p in ours.parameters())


def test_learning_rate_rises_stays_and_falls() -> None:
    config = TrainConfig(steps=100, warmup_steps=9, decay_fraction=0.5)
    factors = [learning_rate_factor(step, config) for step in range(100)]
    assert factors[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert factors[9:51] == [1.0] * 42
    assert factors[75] == pytest.approx(0.5)
    assert factors[99] == pytest.approx(0.02)
    assert learning_rate_factor(50, TrainConfig(steps=100, decay_fraction=0.0)) == 1.0


def test_set_learning_rate_keeps_each_peak() -> None:
    optimizers = build_optimizers(
        small(), TrainConfig(learning_rate=0.004, embedding_learning_rate=0.01, muon_learning_rate=0.02)
    )
    for factor in (0.5, 1.0):
        set_learning_rate(optimizers, factor)
        rates = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
        assert rates == pytest.approx([0.02 * factor, 0.01 * factor, 0.004 * factor, 0.004 * factor])
