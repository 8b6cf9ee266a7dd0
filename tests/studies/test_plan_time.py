"""Seconds of a plan: operations against PyTorch's counter, collectives against a ring that is played through."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from minitx import attention
from minitx.config import ModelConfig, TokenizerConfig, TrainConfig
from minitx.fast import linear
from minitx.model import Transformer, next_token_loss
from minitx.studies.plan import case, pays_up_to
from minitx.studies.plan_memory import MODES, Mode, Stack, memory, part_rows, parts_of, stacks
from minitx.studies.plan_settings import PlanConfig
from minitx.studies.plan_time import (
    BACKWARD,
    FORWARD,
    OUTSIDE,
    gradients_seconds,
    hidden_seconds,
    muon_seconds,
    ring_bytes,
    seconds,
    travel,
)
from minitx.training.muon import Muon, orthogonal
from minitx.training.optim import build_optimizers
from tests.studies.counting import Operations

SMALL = PlanConfig(
    model=ModelConfig(n_layer=2, n_head=4, n_kv_head=2, d_model=64, context_length=32),
    tokenizer=TokenizerConfig("char", 100),
    train=TrainConfig(batch_size=2, grad_accum=512),
    processes="1",
)
DATA_PARALLEL, SHARDED, RECOMPUTED = MODES
VIEWS = {"view", "t", "transpose", "expand", "unsqueeze", "slice", "detach", "_unsafe_view", "permute", "alias"}


def play_ring(processes: int, both_rounds: bool) -> tuple[list[list[float]], int]:
    """Numbers of every process after sums went round a ring, in slices, and how many numbers each has sent."""
    size, sent = 3, 0
    held = [[float(process + 10 * i) for i in range(processes * size)] for process in range(processes)]
    for step in range((2 if both_rounds else 1) * (processes - 1)):
        messages = []
        for process in range(processes):
            at = (process - step) % processes * size
            messages.append((at, held[process][at : at + size]))
        sent += size
        for process in range(processes):
            at, numbers = messages[process - 1]
            for i, number in enumerate(numbers):
                held[process][at + i] = number + (held[process][at + i] if step < processes - 1 else 0)
    return held, sent


@pytest.mark.parametrize("processes", [2, 3, 8])
def test_bytes_of_a_ring_are_those_of_one_played_through(processes: int) -> None:
    held, sent = play_ring(processes, both_rounds=True)
    total = [float(sum(process + 10 * i for process in range(processes))) for i in range(processes * 3)]
    assert all(numbers == total for numbers in held)
    assert sent == pytest.approx(ring_bytes(processes * 3, 2, processes))
    assert play_ring(processes, both_rounds=False)[1] == pytest.approx(ring_bytes(processes * 3, 1, processes))


def test_a_ring_within_and_between_machines() -> None:
    """Against the sums written out: 7 hops of NVLink each way; then 8 machines, bound by one adapter of 100 Gbit/s."""
    assert travel(SMALL, 1e9, 2, 1) == 0
    assert travel(SMALL, 1e9, 1, 8) == pytest.approx(8.4e-6 + 7 * 3.4e-6 + 1e9 * 7 / 8 / (0.8 * 450e9))
    slow = dataclasses.replace(SMALL, network="ethernet")
    expected = 2 * (8.4e-6 + 56 * 3.4e-6 + 7 * 14e-6) + 1e9 * 63 / 64 / (0.8 * 12.5e9)
    assert travel(slow, 1e9, 1, 64, calls=2) == pytest.approx(expected)


def test_small_sums_take_a_tree_and_large_ones_a_ring() -> None:
    tree = 8.4e-6 + 2 * (7 * 3.4e-6 + math.log2(8) * 14e-6)
    assert travel(SMALL, 0, 2, 64) == pytest.approx(tree)
    ring = 8.4e-6 + 2 * (56 * 3.4e-6 + 7 * 14e-6)
    assert travel(SMALL, 1e12, 2, 64) == pytest.approx(ring + 2 * 1e12 * 63 / 64 / (0.8 * 400e9))


@pytest.mark.parametrize("shape", [(3, 24, 24), (5, 16, 40), (2, 48, 12)])
def test_muon_operations_by_pytorchs_counter(shape: tuple[int, int, int]) -> None:
    with FlopCounterMode(display=False) as counter:
        orthogonal(torch.ones(shape))
    assert Stack(*shape, matrices=shape[0]).flops(1) == counter.get_total_flops()


def test_stacks_are_those_of_the_real_muon(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = Transformer(SMALL.model, 100), list[Stack]()

    def spy(self: Muon, parameters: list[Tensor], rows: int, group: object) -> None:
        total = sum(parameter.size(0) for parameter in parameters)
        seen.append(Stack(total // rows, rows, parameters[0].size(1), len(parameters)))

    monkeypatch.setattr(Muon, "update", spy)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    build_optimizers(model, SMALL.train)[0].step()
    assert sorted(seen) == sorted(stacks(SMALL))


def test_operations_that_a_gpu_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within 5 %: those of PyTorch without minitx's forms for the CPU, whose norm takes 18 operations too many."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr(linear, "takes_onednn", lambda x, weight: False)

    def fused(query: Tensor, key: Tensor, value: Tensor, causal: bool, *dropout: float) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value, is_causal=causal, enable_gqa=True)

    monkeypatch.setattr(attention, "fused_attention", fused)
    model, tokens = Transformer(SMALL.model, 100), torch.zeros(2, 32, dtype=torch.long)
    with Operations() as operations, torch.autocast("cpu", torch.bfloat16):
        loss = next_token_loss(model(tokens), tokens)
    with operations:
        loss.backward()
    counted = sum(count for name, count in operations.count.items() if name not in VIEWS)
    layers = SMALL.model.n_layer
    assert layers * (FORWARD + BACKWARD) + OUTSIDE == pytest.approx(counted - 18 * 4 * layers, rel=0.05)


def test_a_process_computes_its_rows_in_parts() -> None:
    assert (parts_of(SMALL, 64), part_rows(SMALL, 64)) == (8, 2)
    assert (parts_of(SMALL, 1024), part_rows(SMALL, 1024)) == (1, 1)


def test_computing_hides_all_but_one_group_of_what_travels() -> None:
    """Three groups that each compute 2 s and travel 1 s: the first travels alone, then two hide behind three."""
    assert hidden_seconds(SMALL, SHARDED, 6.0, 3.0) == pytest.approx(2.0)
    assert hidden_seconds(SMALL, DATA_PARALLEL, 6.0, 3.0) == 0
    assert hidden_seconds(dataclasses.replace(SMALL, overlap=False), SHARDED, 6.0, 3.0) == 0


def test_recomputing_takes_a_forward_pass_of_the_blocks_more() -> None:
    plan = dataclasses.replace(SMALL, launch=0.0)
    blocks = 2 * 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 192) + 2 * 4 * 32 * 64  # per token
    output = 2 * 64 * 100
    ratio = seconds(plan, RECOMPUTED, 8)["compute"] / seconds(plan, SHARDED, 8)["compute"]
    assert ratio == pytest.approx((4 * blocks + 3 * output) / (3 * blocks + 3 * output))


def test_muon_stops_getting_quicker_when_each_process_has_one_matrix() -> None:
    products = [muon_seconds(SMALL, DATA_PARALLEL, n)[0] for n in (1, 2, 8, 512)]
    assert products[0] == pytest.approx(2 * products[1]) and products[2] == products[3]


def test_more_processes_pay_until_what_travels_outweighs() -> None:
    """The limit is the last that is 1.5 times as quick as half of it; where anything pays, the 1,024 rows are it."""
    limit = pays_up_to(SMALL, DATA_PARALLEL)
    steps = [seconds(SMALL, DATA_PARALLEL, n)["in all"] for n in (limit // 2, limit, 2 * limit)]
    assert steps[0] >= 1.5 * steps[1] and steps[1] < 1.5 * steps[2]
    assert case(SMALL, DATA_PARALLEL, 1)["efficiency"] == 1
    assert pays_up_to(dataclasses.replace(SMALL, pays=0.001), DATA_PARALLEL) == 1024


def test_data_parallel_sums_every_gradient_once() -> None:
    plan = dataclasses.replace(SMALL, train=TrainConfig(batch_size=64, grad_accum=16))
    assert gradients_seconds(plan, DATA_PARALLEL, 8) == gradients_seconds(SMALL, DATA_PARALLEL, 8)
    assert gradients_seconds(plan, SHARDED, 8) < gradients_seconds(SMALL, SHARDED, 8)  # fewer parts


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode.shards])
def test_lean_takes_less_for_muon_and_less_memory(mode: Mode) -> None:
    lean = dataclasses.replace(SMALL, lean=True)
    for processes in (8, 64, 512):
        assert muon_seconds(lean, mode, processes)[1] <= muon_seconds(SMALL, mode, processes)[1]
        assert memory(lean, mode, processes)["in all"] <= memory(SMALL, mode, processes)["in all"]
