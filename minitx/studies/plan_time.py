"""Seconds of a training step of many processes, by part, from operations, bytes and the speeds of a GPU and a network.

Collectives follow a ring: every process sends to the next and receives from the one before. Sums may take a tree.
"""

import math

from minitx.model_size import parameter_count
from minitx.studies.plan_memory import (
    BUCKET,
    Mode,
    block_shapes,
    group_numbers,
    matrix_numbers,
    numbers,
    parts_of,
    stacks,
)
from minitx.studies.plan_settings import GPUS, NETWORK, NETWORKS, START, PlanConfig

FORWARD, BACKWARD, OUTSIDE = 51, 56, 36
"""Operations that the GPU starts for a block, forwards and backwards, and outside the blocks; a norm counts as one."""
TREE = 0.92
"""Share of a ring's bandwidth that a tree reaches (tuning.cc)."""
UPDATE_BYTES = 28
"""Bytes that an update moves per parameter: it reads weight, gradient and two means, and writes all but the gradient.
Muon's has one mean, but copies its gradients as often."""


def forward_flops(settings: PlanConfig) -> tuple[int, int]:
    """Operations of one token's forward pass, those of the blocks and all.

    2 per weight, and 4 · n_layer · seq · d_model for attention with its masked half (Kaplan et al. 2020, table 1;
    Chowdhery et al. 2022, PaLM, appendix B): `matmul_flops_per_token` of a model that is not built.
    """
    model = settings.model
    output = 2 * settings.vocab_size * model.d_model
    blocks = 2 * matrix_numbers(settings) - output + 4 * model.n_layer * model.context_length * model.d_model
    return blocks, blocks + output


def step_flops(settings: PlanConfig) -> int:
    """Operations of a step over all its tokens, without recomputation: backwards takes twice as many as forwards."""
    return 3 * forward_flops(settings)[1] * settings.rows * settings.model.context_length


def ring_bytes(n_bytes: float, rounds: int, processes: int) -> float:
    """Bytes that each process sends: (N − 1) / N of all in a round.

    An all-gather and a reduce-scatter take one round, an all-reduce both (Patarasu and Yuan 2009; the bus bandwidth of
    nccl-tests, doc/PERFORMANCE.md).
    """
    return rounds * n_bytes * (processes - 1) / processes


def travel(settings: PlanConfig, n_bytes: float, rounds: int, processes: int, calls: int = 1) -> float:
    """Seconds of `calls` collectives over `n_bytes` in all: latency of every hop, and bytes through the narrowest link.

    NCCL's own model (src/graph/tuning.cc). Its rings leave a machine through all its adapters, so a hop between two is
    as wide as the network of a whole machine. An all-reduce takes a tree where that is quicker: its hops between
    machines are their logarithm, and it reaches `TREE` of the bandwidth (Sanders et al. 2009).
    """
    if processes == 1:
        return 0.0
    gpu, machines = GPUS[settings.gpu], math.ceil(processes / settings.per_machine)
    inside = gpu.link_latency * rounds
    per_gpu, per_machine = NETWORKS[settings.network]
    network = min(per_gpu * settings.per_machine, per_machine) if machines > 1 else math.inf
    rate = settings.network_share * min(gpu.link_rate, network)
    ring = START + (processes - machines) * inside + (machines - 1) * rounds * NETWORK
    by_ring = calls * ring + ring_bytes(n_bytes, rounds, processes) / rate
    tree = START + (processes // machines - 1) * inside + math.log2(machines) * rounds * NETWORK
    return min(by_ring, calls * tree + rounds * n_bytes / (TREE * rate)) if rounds == 2 else by_ring


def matmul_seconds(settings: PlanConfig, flops: float) -> float:
    """Seconds of matrix products at the share of the peak that is set."""
    gpu = GPUS[settings.gpu]
    return flops / ((gpu.float32 if settings.width == 4 else gpu.bfloat16) * settings.compute_share)


def compute_seconds(settings: PlanConfig, mode: Mode, processes: int) -> float:
    """Seconds of all forward and backward passes of a process: of their products, or of starting their operations."""
    blocks, whole = forward_flops(settings)
    tokens = settings.rows // processes * settings.model.context_length
    products = matmul_seconds(settings, tokens * (3 * whole + blocks * mode.recomputes))
    operations = settings.model.n_layer * (FORWARD + BACKWARD + FORWARD * mode.recomputes) + OUTSIDE
    return max(products, parts_of(settings, processes) * operations * settings.launch)


def sharded_traffic(settings: PlanConfig, processes: int) -> tuple[int, int, int]:
    """Bytes gathered and scattered for an update, and the number of collectives, as `fully_shard` does it.

    For each part of the rows, blocks are gathered for both passes and all else once. Gradients are scattered in float32
    after each part.
    """
    (block, outer), layers = group_numbers(settings, processes), settings.model.n_layer
    parts = parts_of(settings, processes)
    gathered = parts * settings.gather_width * (2 * layers * block + outer)
    return gathered, parts * 4 * (layers * block + outer), parts * (3 * layers + 2)


def gradients_seconds(settings: PlanConfig, mode: Mode, processes: int) -> float:
    """Seconds that gradients, and sharded weights, travel for one update."""
    if mode.shards:
        gathered, scattered, calls = sharded_traffic(settings, processes)
        return travel(settings, gathered + scattered, 1, processes, calls)
    whole = parameter_count(settings.model, settings.vocab_size)
    return travel(settings, 4 * whole, 2, processes, math.ceil(whole / BUCKET))


def hidden_seconds(settings: PlanConfig, mode: Mode, compute: float, travelling: float) -> float:
    """Seconds of travelling that computing hides: of a pipeline of groups, all but one group's share of the lesser."""
    if not (mode.shards and settings.overlap):
        return 0.0
    return min(compute, travelling) * (1 - 1 / (settings.model.n_layer + 1))


def muon_seconds(settings: PlanConfig, mode: Mode, processes: int) -> tuple[float, float]:
    """Seconds to make matrices orthogonal, each process its part, and to gather updates of all.

    Parts are filled up to as many blocks as the others have; of fewer blocks than processes, a sum is made. Sharded
    gradients are gathered before, one by one. If `lean`, nothing is filled up, and a sharded process receives the
    gradients and sends the updates of its part alone.
    """
    products = handed = 0.0
    for stack in stacks(settings):
        products += matmul_seconds(settings, stack.flops(processes))
        if settings.lean:
            n_bytes = (
                (4 + settings.width) * stack.numbers(processes) if mode.shards else settings.width * stack.numbers()
            )
            handed += travel(settings, n_bytes, 1, processes, 2 if mode.shards else 1)
            continue
        if stack.blocks < processes:
            handed += travel(settings, settings.width * stack.numbers(), 2, processes)
        else:
            handed += travel(settings, settings.width * stack.numbers(processes) * processes, 1, processes)
        if mode.shards:
            matrix = (stack.blocks * stack.rows // stack.matrices, stack.columns)
            gathered = 4 * stack.matrices * numbers([matrix], processes)
            handed += travel(settings, gathered, 1, processes, stack.matrices)
    return products, handed


def checkpoint_seconds(settings: PlanConfig, mode: Mode, processes: int) -> float:
    """Seconds to write weights and optimizer state in one process; sharded, each tensor is gathered before."""
    whole, by_muon = parameter_count(settings.model, settings.vocab_size), sum(s.numbers() for s in stacks(settings))
    saved, tensors = 12 * whole - 4 * by_muon, settings.model.n_layer * len(block_shapes(settings.model)) + 3
    gathering = travel(settings, saved, 1, processes, 2 * tensors) if mode.shards else 0.0
    return gathering + saved / settings.disk


def seconds(settings: PlanConfig, mode: Mode, processes: int) -> dict[str, float]:
    """Seconds of a step by part, and in all; writing a checkpoint is spread over the steps between two."""
    compute, travelling = compute_seconds(settings, mode, processes), gradients_seconds(settings, mode, processes)
    orthogonal, handed = muon_seconds(settings, mode, processes)
    held = parameter_count(settings.model, settings.vocab_size) / (processes if mode.shards else 1)
    parts = {
        "compute": compute,
        "travel": travelling - hidden_seconds(settings, mode, compute, travelling),
        "update": UPDATE_BYTES * held / GPUS[settings.gpu].memory_rate,
        "Muon": orthogonal,
        "Muon's travel": handed,
        "checkpoint": checkpoint_seconds(settings, mode, processes) / settings.train.checkpoint_every,
    }
    return parts | {"in all": sum(parts.values())}
