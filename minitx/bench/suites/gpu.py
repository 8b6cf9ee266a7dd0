"""The suite `gpu`: one table for a CUDA machine.

Steps against nanoGPT's and against the matrix-product ceiling, decoding against the limit that memory sets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from minitx.bench import steps
from minitx.bench.peak import peak_memory
from minitx.bench.settings import BenchConfig
from minitx.bench.shapes import Shape, named
from minitx.bench.suites.ceiling import COPIED, SIZES, copy_memory, flops, flops_per_token, multiply
from minitx.bench.suites.generate import COMPILED, OURS, Work, can_compile, ours_does
from minitx.bench.tables import Cell, Table, by_turns, raw_seconds
from minitx.model import Transformer
from minitx.system.errors import require
from minitx.system.runtime import Runtime
from minitx.system.timing import Candidate

SHAPES = ("gpu_small", "shakespeare_char")
MAX_NEW = 256
"""Tokens that are decoded."""


def run(settings: BenchConfig, shapes: list[Shape], runtime: Runtime) -> Iterator[Table]:
    """One table, of shapes of its own."""
    require_cuda(runtime)
    yield measure(settings, [named(name) for name in SHAPES], runtime, SIZES["cuda"], COPIED["cuda"])


def require_cuda(runtime: Runtime) -> None:
    """Raise `UserError` unless the run is on a CUDA device."""
    require(
        runtime.device.type == "cuda",
        f"The suite gpu needs a CUDA device, but this run is on {runtime.device.type}: run it where one is.",
    )


def measure(
    settings: BenchConfig, shapes: Sequence[Shape], runtime: Runtime, sizes: Sequence[int], copied: int
) -> Table:
    """The table, with ceilings from square products of `sizes` and from a copy of `copied` bytes."""
    table = Table(
        f"gpu · {str(runtime.dtype).removeprefix('torch.')}, {'compiled' if runtime.compile else 'not compiled'}",
        ["what", "candidate", "best", "median", "unit", "× nanoGPT", "TFLOP/s", "% of limit", "peak memory, GB"],
    )
    squares = {f"{size}": (size, size, size) for size in sizes}
    products = multiply(settings, squares, runtime.device, runtime.dtype)
    table.raw["products"] = raw_seconds(products)
    ceiling = max(flops(squares[name]) / each.minimum for name, each in products.items())
    middle = max(flops(squares[name]) / each.median for name, each in products.items())
    copy = copy_memory(settings, runtime.device, copied)
    table.raw["copy"] = raw_seconds({"copy": copy})
    bandwidth = 2 * copied / copy.minimum
    table.rows.append(["matrix product", "torch.mm", ceiling / 1e12, middle / 1e12, "TFLOP/s", None, None, None, None])
    table.rows.append(
        ["copy", "Tensor.copy_", bandwidth / 1e9, 2 * copied / copy.median / 1e9, "GB/s", None, None, None, None]
    )
    for shape in shapes:
        table.rows += step_rows(settings, shape, runtime, ceiling, table)
    for shape in shapes:
        table.rows += decode_rows(settings, shape, runtime, bandwidth, table)
    table.notes.append(
        "% of limit: of a step, its FLOPs of matrix products against the best square product; of decoding, the time "
        "that reading all weights once for each token would take at the speed of the copy."
    )
    if settings.nanogpt is None:
        table.notes.append("nanoGPT is left out: give a checkout of it with --nanogpt PATH.")
    return table


def step_rows(settings: BenchConfig, shape: Shape, runtime: Runtime, ceiling: float, table: Table) -> list[list[Cell]]:
    """A training step of minitx and of nanoGPT, by turns."""
    kinds = [steps.OURS] + ([steps.NANO_GPT] if settings.nanogpt else [])
    memory = {kind: peak_memory(kind, shape, runtime, settings.nanogpt) for kind in kinds}
    timed = by_turns(
        settings,
        {kind: steps.build(kind, shape, runtime, settings.nanogpt, settings.seed) for kind in kinds},
        runtime.device,
        f"step {shape.name}",
    )
    table.raw[f"step {shape.name}"] = {"seconds": raw_seconds(timed), "memory": memory}
    rows: list[list[Cell]] = []
    for kind, each in timed.items():
        work = shape.tokens_per_step / each.minimum * flops_per_token(shape) if kind == steps.OURS else None
        rows.append(
            [
                f"step, {shape.describe()}",
                kind,
                shape.tokens_per_step / each.minimum,
                shape.tokens_per_step / each.median,
                "tokens/s",
                timed[steps.NANO_GPT].minimum / each.minimum if settings.nanogpt else None,
                work / 1e12 if work else None,
                100 * work / ceiling if work else None,
                (memory[kind]["peak"] - memory[kind]["before"]) / 1e9,
            ]
        )
    return rows


def decode_rows(
    settings: BenchConfig, shape: Shape, runtime: Runtime, bandwidth: float, table: Table
) -> list[list[Cell]]:
    """Decoding at batch 1, with weights in the run's precision; operation by operation and compiled."""
    torch.manual_seed(settings.seed)
    model = Transformer(shape.model, shape.vocab_size).to(runtime.device, runtime.dtype).eval()
    work = Work("", [1], min(shape.model.context_length, MAX_NEW))
    candidates: dict[str, Candidate] = {OURS: ours_does(model, work)}
    if can_compile(model, work, runtime):
        candidates[COMPILED] = ours_does(model, work, compile=True)
    timed = by_turns(settings, candidates, runtime.device, f"decode {shape.name}")
    table.raw[f"decode {shape.name}"] = raw_seconds(timed)
    read = sum(p.numel() for p in model.blocks.parameters()) + model.output.weight.numel()
    limit = read * model.embedding.weight.element_size() / bandwidth  # seconds for a token
    return [
        [
            f"decode {work.n_new}, batch 1, {shape.name}",
            name,
            work.n_new / each.minimum,
            work.n_new / each.median,
            "tokens/s",
            None,
            None,
            100 * limit / (each.minimum / work.n_new),
            None,
        ]
        for name, each in timed.items()
    ]
