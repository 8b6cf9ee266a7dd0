"""The suite `scaling`: how a step, a decoded token and memory grow with one size at a time, beside what theory says.

Theory: a training step costs three times the FLOPs of the forward pass's matrix products; a decoded token costs reading
every weight and, on average, half the cache of a full context; a cache costs its formula.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import torch

from minitx.bench import steps
from minitx.bench.peak import peak_memory
from minitx.bench.settings import BenchConfig
from minitx.bench.shapes import Shape
from minitx.bench.suites.ceiling import flops_per_token
from minitx.bench.suites.generate import Work, ours_does
from minitx.bench.tables import Cell, Table, by_turns, raw_seconds
from minitx.model import Transformer
from minitx.model_size import cache_bytes_per_token
from minitx.system.errors import UserError
from minitx.system.runtime import Runtime
from minitx.system.timing import Timed

FACTORS = (0.25, 0.5, 1, 2, 4)
"""Of the shape's own size."""

Change = Callable[[Shape, int], Shape]


def with_model(shape: Shape, **settings: int | None) -> Shape:
    """The shape with other model settings."""
    return dataclasses.replace(shape, model=dataclasses.replace(shape.model, **settings))  # type: ignore[arg-type]  # by name


AXES: dict[str, tuple[Callable[[Shape], int], Change]] = {
    "context": (lambda shape: shape.model.context_length, lambda shape, n: with_model(shape, context_length=n)),
    "width": (lambda shape: shape.model.d_model, lambda shape, n: with_model(shape, d_model=n, d_ff=None)),
    "heads": (lambda shape: shape.model.n_head, lambda shape, n: with_model(shape, n_head=n, n_kv_head=None)),
    "batch": (
        lambda shape: shape.train.batch_size,
        lambda shape, n: dataclasses.replace(shape, train=dataclasses.replace(shape.train, batch_size=n)),
    ),
}
"""What is varied → its size in a shape, and the shape with another size."""


def run(settings: BenchConfig, shapes: list[Shape], runtime: Runtime) -> Iterator[Table]:
    """For each shape a table of each axis."""
    for shape in shapes:
        for axis in AXES:
            yield grow(settings, shape, axis, runtime)


def variants(shape: Shape, axis: str) -> dict[int, Shape]:
    """The shape at each size that is possible."""
    size, change = AXES[axis]
    found = {}
    for factor in FACTORS:
        number = int(size(shape) * factor)
        try:
            found[number] = change(shape, number)
        except UserError:  # heads that would not divide the width, or a size of 0
            continue
    return found


def grow(settings: BenchConfig, shape: Shape, axis: str, runtime: Runtime) -> Table:
    """Time and memory of every size, all by turns."""
    sizes, own = variants(shape, axis), AXES[axis][0](shape)
    trained = timed(
        settings, runtime, f"train, {axis}", {n: steps.build(steps.OURS, each, runtime) for n, each in sizes.items()}
    )
    decoded = timed(
        settings, runtime, f"decode, {axis}", {n: decoding(each, axis, runtime) for n, each in sizes.items()}
    )
    memory = {n: peak_memory(steps.OURS, each, runtime, None) for n, each in sizes.items()}
    step_theory = {n: flops_per_token(each) * each.tokens_per_step for n, each in sizes.items()}
    decode_theory = {n: bytes_per_token(each, axis) for n, each in sizes.items()}
    rows: list[list[Cell]] = []
    for n, each in sizes.items():
        written = written_tokens(each)
        cache = meta_model(each).new_cache(decode_batch(each, axis)).nbytes
        formula = cache_bytes_per_token(each.model) * each.model.context_length * decode_batch(each, axis)
        rows.append(
            [
                f"{n}{' (as it is)' if n == own else ''}",
                1e3 * trained[n].minimum,
                trained[n].minimum / trained[own].minimum,
                step_theory[n] / step_theory[own],
                1e3 * decoded[n].minimum / written,
                decoded[n].minimum / written / (decoded[own].minimum / written_tokens(shape)),
                decode_theory[n] / decode_theory[own],
                (memory[n]["peak"] - memory[n]["before"]) / 1e6,
                cache / 1e3,
                formula / 1e3,
            ]
        )
    return Table(
        f"scaling with {axis} · {shape.describe()}",
        [
            axis,
            "ms per step",
            "×",
            "× in FLOPs",
            "ms per decoded token",
            "×",
            "× in bytes read",
            "training memory, MB",
            "cache, KB",
            "by formula, KB",
        ],
        rows,
        [
            "Least times. Training memory: the peak less what was there before the model. Decoded: the whole context"
            + (", a row for each of the batch." if axis == "batch" else ", batch 1.")
        ],
        {
            "train": raw_seconds({str(n): each for n, each in trained.items()}),
            "decode": raw_seconds({str(n): each for n, each in decoded.items()}),
            "memory": memory,
        },
    )


def timed(
    settings: BenchConfig, runtime: Runtime, label: str, candidates: dict[int, Callable[[], object]]
) -> dict[int, Timed]:
    """The candidates by turns, each under its size."""
    found = by_turns(settings, {str(n): candidate for n, candidate in candidates.items()}, runtime.device, label)
    return {n: found[str(n)] for n in candidates}


def decoding(shape: Shape, axis: str, runtime: Runtime) -> Callable[[], object]:
    """A call that fills the context token by token."""
    torch.manual_seed(0)
    model = Transformer(shape.model, shape.vocab_size).to(runtime.device).eval()
    return ours_does(model, Work("", [1], written_tokens(shape), decode_batch(shape, axis)))


def written_tokens(shape: Shape) -> int:
    """Tokens that decoding writes."""
    return shape.model.context_length


def decode_batch(shape: Shape, axis: str) -> int:
    """Samples that are decoded at once: one, unless it is the batch that grows."""
    return shape.train.batch_size if axis == "batch" else 1


def meta_model(shape: Shape) -> Transformer:
    """The model without its values."""
    with torch.device("meta"):
        return Transformer(shape.model, shape.vocab_size)


def bytes_per_token(shape: Shape, axis: str) -> float:
    """Bytes that a decoding step reads: the matrices once, and half a full cache for each sample."""
    model = meta_model(shape)
    weights = sum(p.numel() for p in model.blocks.parameters()) + model.output.weight.numel()
    cache = cache_bytes_per_token(shape.model) * shape.model.context_length / 2 * decode_batch(shape, axis)
    return 4 * weights + cache
