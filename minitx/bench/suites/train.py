"""The suite `train`: tokens per second and memory of a training step, and where its time goes."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator

from minitx.bench import parts, steps
from minitx.bench.peak import peak_memory
from minitx.bench.settings import BenchConfig
from minitx.bench.shapes import Shape
from minitx.bench.tables import RATES, Table, by_turns, rates, raw_seconds
from minitx.system.runtime import Runtime


def run(settings: BenchConfig, shapes: list[Shape], runtime: Runtime) -> Iterator[Table]:
    """Two tables for each shape."""
    for shape in shapes:
        yield speed(settings, shape, runtime)
        yield time_by_part(settings, shape, runtime)


def speed(settings: BenchConfig, shape: Shape, runtime: Runtime) -> Table:
    """A whole step of each candidate, in turn, and the memory each takes alone."""
    kinds, notes = steps.kinds(settings.nanogpt)
    memory = {kind: peak_memory(kind, shape, runtime, settings.nanogpt) for kind in kinds}
    candidates = {kind: steps.build(kind, shape, runtime, settings.nanogpt, settings.seed) for kind in kinds}
    timed = by_turns(settings, candidates, runtime.device, f"train {shape.name}")
    del candidates
    gc.collect()
    base = steps.LLAMA if steps.LLAMA in kinds else steps.ENCODER
    found = rates(timed, base, shape.tokens_per_step)
    table = Table(
        f"train, tokens per second · {shape.describe()}",
        ["candidate", *RATES, "peak memory, MB", "of it imports, MB"],
        [[kind, *found[kind], memory[kind]["peak"] / 1e6, memory[kind]["before"] / 1e6] for kind in kinds],
        notes,
        {"seconds": raw_seconds(timed), "memory": memory, "base": base, "shape": shape.as_json()},
    )
    table.notes.append(
        f"A step is batch, forward, backward, clipping and update. {steps.OURS}: as it trains, with "
        f"{'Muon and AdamW' if shape.train.optimizer == 'muon' else 'AdamW'}"
        f"{' and query-key norm' if shape.model.qk_norm else ''}. × is against {base}."
    )
    return table


def time_by_part(settings: BenchConfig, shape: Shape, runtime: Runtime) -> Table:
    """The share that each part has of minitx's training, logging spread over the steps between."""
    prepared = parts.text_for(settings, shape)
    shape = dataclasses.replace(shape, vocab_size=max(shape.vocab_size, prepared.tokenizer.vocab_size))
    step = parts.step_parts(shape, runtime, prepared, settings.repeats, settings.seconds)
    logs = parts.logging_parts(shape, runtime, prepared)
    per_step = {**step["parts"], **{f"logging: {name}": took / every for name, (took, every) in logs.items()}}
    total = sum(per_step.values())
    table = Table(
        f"train, time of a step by part · {shape.describe()}",
        ["part", "ms per step", "share, %"],
        [[name, 1e3 * took, 100 * took / total] for name, took in per_step.items()],
        raw={"step": step, "logging": {name: {"seconds": took, "every": n} for name, (took, n) in logs.items()}},
    )
    table.rows.append(["together", 1e3 * total, 100.0])
    table.notes.append(
        "The middle step of all, on "
        f"{settings.text or 'python-docs'}; logging: the least seconds of one, over the steps from one to the next."
    )
    return table
