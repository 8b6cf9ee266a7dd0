"""The suite `scaling`: how a step, a decoded token and memory grow with one size at a time, beside theory.

Theory: a training step costs three times the FLOPs of the forward pass's matrix products; a decoded token costs reading
every weight and, on average, half the cache of a full context; a cache costs its formula.
"""

from __future__ import annotations

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
from minitx.bench.suites.ceiling import flops_per_token
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
    cache = {n: cache_bytes_per_token(v.model) * v.model.context_length * batch[n] for n, v in sizes.items()}
    training = {n: steps.build(bench, steps.OURS, variant) for n, variant in sizes.items()}
    trained = bench.time(training, f"train, {axis}")
    decoding = {n: decode_context(variant, batch[n], bench.runtime) for n, variant in sizes.items()}
    decoded = bench.time(decoding, f"decode, {axis}")
    memory = {n: peak_memory(bench, steps.OURS, variant) for n, variant in sizes.items()}

    step = {n: time.minimum for n, time in trained.items()}
    token = {n: time.minimum / sizes[n].model.context_length for n, time in decoded.items()}
    flops = {n: flops_per_token(variant) * variant.tokens_per_step for n, variant in sizes.items()}
    read = {n: weight_bytes(variant) + cache[n] / 2 for n, variant in sizes.items()}
    table = Table(f"scaling with {axis} · {shape.describe()}", raw={"memory": memory})
    for n, variant in sizes.items():
        table.rows.append(
            {
                axis: f"{n} (as it is)" if n == base else n,
                "ms per step": 1e3 * step[n],
                "× in time": step[n] / step[base],
                "× in FLOPs": flops[n] / flops[base],
                "ms per decoded token": 1e3 * token[n],
                "× in its time": token[n] / token[base],
                "× in bytes read": read[n] / read[base],
                "training memory, MB": (memory[n]["peak"] - memory[n]["before"]) / 1e6,
                "cache, KB": variant.meta_model().new_cache(batch[n]).nbytes / 1e3,
                "by formula, KB": cache[n] / 1e3,
            }
        )
    written = "a row for each of the batch" if axis == "batch" else "batch 1"
    note = "Least times. Training memory: the peak less what was there before the model. Decoded: the whole context, "
    table.notes.append(f"{note}{written}.")
    table.add_seconds("train", trained)
    table.add_seconds("decode", decoded)
    return table


def decode_context(shape: Shape, batch: int, runtime: Runtime) -> Candidate:
    """A call that fills the context token by token."""
    torch.manual_seed(0)
    model = Transformer(shape.model, shape.vocab_size).to(runtime.device).eval()
    return partial(write_tokens, model, Work("", [1], shape.model.context_length, batch))


def weight_bytes(shape: Shape) -> int:
    """Bytes of the matrices that a decoding step reads."""
    model = shape.meta_model()
    return 4 * (sum(p.numel() for p in model.blocks.parameters()) + model.output.weight.numel())
