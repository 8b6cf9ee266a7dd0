"""Memory that a plan counts from shapes, against the real model, the real optimizers and real sharding."""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, cast

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils.checkpoint import checkpoint

from minitx import attention, model
from minitx.config import ModelConfig, TokenizerConfig, TrainConfig
from minitx.model import Transformer, next_token_loss
from minitx.model_size import matmul_flops_per_token, parameter_count
from minitx.studies.plan_memory import MODES, Mode, group_numbers, memory, stacks, update_bytes
from minitx.studies.plan_settings import PlanConfig
from minitx.studies.plan_time import forward_flops, sharded_traffic
from minitx.training.optim import build_optimizers
from tests.studies.counting import Operations, Peak, kept_bytes

Precision = Literal["float32", "bfloat16"]
PRECISIONS: list[Precision] = ["float32", "bfloat16"]
SHAPES = [
    ModelConfig(n_layer=4, n_head=4, n_kv_head=2, d_model=64, context_length=64),
    ModelConfig(n_layer=3, n_head=2, d_model=48, context_length=32, qk_norm=False, tie_embeddings=True),
    ModelConfig(n_layer=3, n_head=4, n_kv_head=1, d_model=64, d_ff=96, context_length=128),
]
VOCABULARY, ROWS = 300, 4
DATA_PARALLEL, SHARDED, _ = MODES


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the fused kernel in bfloat16 too, and PyTorch's own loss: the CPU's keep other bytes."""

    def fused(query: Tensor, key: Tensor, value: Tensor, causal: bool, *dropout: float) -> Tensor:
        grouped = query.size(1) != key.size(1)
        return F.scaled_dot_product_attention(query, key, value, is_causal=causal, enable_gqa=grouped)

    monkeypatch.setattr(attention, "fused_attention", fused)
    monkeypatch.setattr(model, "cross_entropy", lambda x, y, reduction: F.cross_entropy(x.float(), y))


def plan_of(shape: ModelConfig, precision: Precision, processes: int = 1, lean: bool = False) -> PlanConfig:
    return PlanConfig(
        dtype=precision,
        tokenizer=TokenizerConfig("char", VOCABULARY),
        model=shape,
        train=TrainConfig(batch_size=ROWS, grad_accum=2 * processes),
        processes=str(processes),
        lean=lean,
    )


def training(shape: ModelConfig, precision: Precision, recomputes: bool) -> tuple[Transformer, Callable[[], Tensor]]:
    """A model, and its loss on some rows."""
    built = Transformer(shape, VOCABULARY)
    if recomputes:
        for block in built.blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    tokens = torch.arange(ROWS * shape.context_length).view(ROWS, -1) % VOCABULARY

    def loss() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            return next_token_loss(built(tokens), tokens)

    return built, loss


@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_and_operations_of_the_real_model(shape: ModelConfig) -> None:
    plan = plan_of(shape, "float32")
    block, outer = group_numbers(plan, 1)
    assert shape.n_layer * block + outer == parameter_count(shape, VOCABULARY)
    assert forward_flops(plan)[1] == matmul_flops_per_token(Transformer(shape, VOCABULARY), shape.context_length)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_autograd_keeps_as_many_bytes_as_counted(shape: ModelConfig, precision: Precision) -> None:
    """Within 0.1 %: the hooks see every tensor that the real forward pass saves."""
    built, loss = training(shape, precision, recomputes=False)
    needs = memory(plan_of(shape, precision), DATA_PARALLEL, 1)
    logits = 4 * VOCABULARY * ROWS * shape.context_length  # the log-probabilities, in float32
    kept = kept_bytes(loss, [*built.parameters(), *built.buffers()])
    assert needs["activations"] + needs["bfloat16 weights"] + logits == pytest.approx(kept, rel=1e-3)


@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_peak_of_both_passes(shape: ModelConfig, precision: Precision, recomputes: bool) -> None:
    """Within 8 %, with gradients of earlier rows: gradients, copies of weights, activations, loss."""
    built, loss = training(shape, precision, recomputes)
    with Peak([*built.parameters(), *built.buffers()]) as peak:
        loss().backward()
        peak.most = 0
        loss().backward()
    needs = memory(plan_of(shape, precision), Mode("", False, recomputes), 1)
    passes = needs["gradients"] + needs["bfloat16 weights"] + needs["activations"] + needs["at work"]
    assert passes == pytest.approx(peak.most, rel=0.08)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_state_and_peak_of_the_real_optimizers(optimizer: Literal["muon", "adamw"], precision: Precision) -> None:
    """State within 0.1 %, which leaves AdamW's counters room; Muon's peak within 2 %."""
    plan = plan_of(SHAPES[0], precision)
    settings = TrainConfig(batch_size=ROWS, optimizer=optimizer)
    object.__setattr__(plan, "train", settings)
    built = Transformer(SHAPES[0], VOCABULARY)
    optimizers = build_optimizers(built, settings, getattr(torch, precision))
    for parameter in built.parameters():
        parameter.grad = torch.ones_like(parameter)
    for one in optimizers:
        one.step()
    state = [t for one in optimizers for held in one.state.values() for t in held.values() if isinstance(t, Tensor)]
    needs = memory(plan, DATA_PARALLEL, 1)
    assert needs["AdamW"] + needs["Muon"] == pytest.approx(sum(t.nbytes for t in state), rel=1e-3)
    known = [*built.parameters(), *(p.grad for p in built.parameters() if p.grad is not None), *state]
    with Peak(known) as peak:
        for one in optimizers:
            one.step()
    if optimizer == "muon":
        assert needs["update"] - needs["gradients"] == pytest.approx(peak.most, rel=0.02)


@pytest.fixture(params=[8, 64])
def processes(request: Any) -> Iterator[int]:
    """That many, of which this is one and the others do nothing: PyTorch's fake process group."""
    dist.init_process_group("fake", rank=0, world_size=request.param, store=FakeStore())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # FSDP warns of views, which minitx does not change in place
        yield request.param
    dist.destroy_process_group()


@pytest.mark.parametrize(("recomputes", "lean"), [(False, False), (True, False), (False, True)])
def test_traffic_and_memory_of_fully_shard(processes: int, recomputes: bool, lean: bool) -> None:
    """Of an update in two parts. Traffic to the byte; memory within 10 % above, for the CPU gathers no block ahead."""
    precision: Precision = "bfloat16" if lean else "float32"
    shape, plan = SHAPES[0], plan_of(SHAPES[0], precision, processes, lean)
    built, loss = training(shape, precision, recomputes)
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if lean else MixedPrecisionPolicy()
    mesh = init_device_mesh("cpu", (processes,))
    for part in (*built.blocks, built):
        fully_shard(part, mesh=mesh, mp_policy=policy)
    shards: list[Any] = [*built.parameters()]
    own = [parameter.to_local() for parameter in shards]
    with Peak([*own, *built.buffers()]) as peak, Operations() as operations:
        for _ in range(2):
            loss().backward()
    gathered, scattered, calls = sharded_traffic(plan, processes)
    assert operations.bytes == {"_allgather_base_": gathered, "_reduce_scatter_base_": scattered}
    assert sum(operations.calls.values()) == calls
    needs = memory(plan, Mode("", True, recomputes), processes)
    assert needs["weights"] == sum(tensor.nbytes for tensor in own)
    passes = needs["gradients"] + needs["gathered"] + needs["activations"] + needs["at work"]
    if not lean:  # the policy takes the residual to bfloat16 too, which halves activations
        assert peak.most <= passes <= 1.1 * peak.most


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("shards", [False, True])
def test_muon_of_many_processes(processes: int, shards: bool, precision: Precision) -> None:
    """What it gathers to the byte, its peak within 4 %."""
    parallel = pytest.importorskip("minitx.training.parallel", reason="minitx trains in one process only")
    sharding, plan = importlib.import_module("minitx.training.sharding"), plan_of(SHAPES[0], precision, processes)
    group, build = parallel.Group(parallel.ParallelConfig(shard=shards), 0, processes), cast(Any, build_optimizers)
    built = Transformer(SHAPES[0], VOCABULARY)
    if shards:
        sharding.shard(built, group, torch.device("cpu"))
    for parameter in built.parameters():
        parameter.grad = torch.ones_like(parameter)
    muon, _ = build(built, plan.train, getattr(torch, precision), group)
    muon.step()
    held: list[Any] = [t for p in built.parameters() for t in (p, p.grad, *muon.state.get(p, {}).values())]
    with Peak([getattr(t, "_local_tensor", t) for t in held]) as peak, Operations() as operations:
        muon.step()
    found = stacks(plan)
    gathered = [stack for stack in found if stack.blocks >= processes]
    added = sum(plan.width * stack.numbers() for stack in found if stack.blocks < processes)
    assert operations.bytes["_allgather_base_"] == sum(plan.width * s.numbers(processes) * processes for s in gathered)
    assert operations.bytes["allreduce_"] == added
    assert operations.count["_allgather_base_"] == len(gathered)
    assert operations.count["all_gather_into_tensor"] == shards * sum(stack.matrices for stack in found)
    mode = SHARDED if shards else DATA_PARALLEL
    assert peak.most == pytest.approx(update_bytes(plan, mode, processes), rel=0.04)


def test_the_mean_of_the_weights_is_as_large_as_they_are() -> None:
    plan = plan_of(SHAPES[0], "float32")
    before = memory(plan, DATA_PARALLEL, 1)
    object.__setattr__(plan, "train", dataclasses.replace(plan.train, average_fraction=0.1))
    after = memory(plan, DATA_PARALLEL, 1)
    assert after["mean of weights"] == after["weights"] == after["in all"] - before["in all"]
