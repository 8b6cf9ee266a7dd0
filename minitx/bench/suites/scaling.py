"""The suite `scaling`: how a step, a decoded token and memory grow with one size at a time."""

import contextlib
import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from minitx.bench import steps
from minitx.bench.peak import peak_memory
from minitx.bench.shapes import Shape
from minitx.bench.suite import Bench, Table
from minitx.bench.suites.generate import Work, write_tokens
from minitx.model import Transformer
from minitx.model_size import cache_bytes_per_token
from minitx.system.errors import UserError
from minitx.system.runtime import Runtime
from minitx.system.timing import Candidate

FACTORS = (0.25, 0.5, 1, 2, 4)
"""Multiples of the shape's size."""

AXES: dict[str, tuple[str, str, dict[str, None]]] = {
    "context": ("model", "context_length", {}),
    "width": ("model", "d_model", {"d_ff": None}),
    "heads": ("model", "n_head", {"n_kv_head": None}),
    "batch": ("train", "batch_size", {}),
}
"""What grows → section and name of its setting, and other settings of the section that follow it."""


def run(bench: Bench) -> Iterator[Table]:
    """A table of every axis for every shape."""
    for shape in bench.shapes:
        for axis in AXES:
            yield grow(bench, shape, axis)


def variants(shape: Shape, axis: str) -> tuple[dict[str, Shape], str]:
    """The shape at every possible size, by that size, and the size that it has."""
    section, name, following = AXES[axis]
    before: Any = getattr(shape, section)
    size, shapes = getattr(before, name), {}
    for factor in FACTORS:
        with contextlib.suppress(UserError):  # heads that do not divide the width, or a size of 0
            changed = dataclasses.replace(before, **{name: int(size * factor), **following})
            shapes[str(getattr(changed, name))] = dataclasses.replace(shape, **{section: changed})
    return shapes, str(size)


def grow(bench: Bench, shape: Shape, axis: str) -> Table:
    """Time and memory at every size, all by turns."""
    sizes, base = variants(shape, axis)
    batch = {n: variant.train.batch_size if axis == "batch" else 1 for n, variant in sizes.items()}
    training = {n: steps.build(bench, steps.OURS, variant).step for n, variant in sizes.items()}
    trained = bench.time(training, f"train, {axis}")
    decoding = {n: decode_context(variant, batch[n], bench.runtime) for n, variant in sizes.items()}
    decoded = bench.time(decoding, f"decode, {axis}")
    memory = {n: peak_memory(bench, steps.OURS, variant) for n, variant in sizes.items()}
    token = {n: time.minimum / sizes[n].model.context_length for n, time in decoded.items()}
    table = Table(f"scaling with {axis} · {shape.describe_training()}", raw={"memory": memory})
    for n, variant in sizes.items():
        table.rows.append(
            {
                axis: f"{n} (as it is)" if n == base else n,
                "ms per step": 1e3 * trained[n].minimum,
                "× per step": trained[n].minimum / trained[base].minimum,
                "ms per decoded token": 1e3 * token[n],
                "× per token": token[n] / token[base],
                "training memory, MB": (memory[n]["peak"] - memory[n]["before"]) / 1e6,
                "cache, KB": cache_bytes_per_token(variant.model) * variant.model.context_length * batch[n] / 1e3,
            }
        )
    written = "a row for each of the batch" if axis == "batch" else "batch 1"
    table.notes.append(f"Least times. Training memory leaves out the imports. Decoded: the whole context, {written}.")
    table.add_seconds("train", trained)
    table.add_seconds("decode", decoded)
    return table


def decode_context(shape: Shape, batch: int, runtime: Runtime) -> Candidate:
    """A call that fills the context token by token."""
    torch.manual_seed(0)
    model = Transformer(shape.model, shape.vocab_size).to(runtime.device).eval()
    return partial(write_tokens, model, Work(shape.model.context_length, batch=batch))
