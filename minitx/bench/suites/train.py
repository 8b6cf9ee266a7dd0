"""The suite `train`: tokens per second and memory of a training step, and how its time divides.

For that, minitx's step runs with clocks around what it calls. The rest of the step is backward and clipping, so that
the parts add up.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from minitx.bench import steps
from minitx.bench.peak import peak_memory
from minitx.bench.shapes import Shape
from minitx.bench.suite import Bench, Row, Table
from minitx.bench.training import our_training
from minitx.config import Config, DataConfig, TokenizerConfig
from minitx.data.prepare import Prepared, prepare
from minitx.model import Transformer
from minitx.run.folder import Run
from minitx.system.errors import UserError
from minitx.system.runtime import Runtime
from minitx.system.timing import alternate, synchronise
from minitx.training.report import Report
from minitx.training.state import Training, due_after

PARTS = ("data", "forward and loss", "backward and clipping", "optimizer")
REPORTS = 3
"""Repeats of every kind of logging."""


def run(bench: Bench) -> Iterator[Table]:
    """Two tables for every shape."""
    for shape in bench.shapes:
        yield speed(bench, shape)
        yield time_by_part(bench, shape)


def speed(bench: Bench, shape: Shape) -> Table:
    """A whole step of all candidates by turns, and the memory of every candidate alone."""
    kinds, notes = steps.kinds(bench)
    base = steps.LLAMA if steps.LLAMA in kinds else steps.ENCODER
    memory = {kind: peak_memory(bench, kind, shape) for kind in kinds}
    timed = bench.time({kind: steps.build(bench, kind, shape) for kind in kinds}, f"train {shape.name}")
    raw = {"memory": memory, "base": base, "shape": dataclasses.asdict(shape)}
    table = Table(f"train, tokens per second · {shape.describe()}", notes=notes, raw=raw)
    peak, before = ({kind: memory[kind][when] / 1e6 for kind in kinds} for when in ("peak", "before"))
    table.add_rates(
        "seconds", timed, base, shape.tokens_per_step, {}, **{"peak memory, MB": peak, "of it imports, MB": before}
    )
    notes.append(
        f"A step is batch, forward, backward, clipping and update. {steps.OURS}: as it trains, with "
        f"{'Muon and AdamW' if shape.train.optimizer == 'muon' else 'AdamW'}"
        f"{' and query-key norm' if shape.model.qk_norm else ''}. × is against {base}."
    )
    return table


def time_by_part(bench: Bench, shape: Shape) -> Table:
    """The share of every part in minitx's training; logging is spread over the steps between."""
    source = bench.settings.text or "python-docs"
    prepared = prepared_text(source, shape, bench.settings.seed)
    shape = dataclasses.replace(shape, vocab_size=max(shape.vocab_size, prepared.tokenizer.vocab_size))
    step, logs = step_parts(bench, shape, prepared), logging_parts(shape, bench.runtime, prepared)
    seconds = step["parts"] | {f"logging: {name}": log["seconds"] / log["every"] for name, log in logs.items()}
    seconds["together"] = together = sum(seconds.values())
    note = (
        f"The middle step of all, on {source}; logging: the least seconds of one, over the steps from one to the next."
    )
    rows: list[Row] = [
        {"part": part, "ms per step": 1e3 * s, "share, %": 100 * s / together} for part, s in seconds.items()
    ]
    title, raw = f"train, time of a step by part · {shape.describe()}", {"step": step, "logging": logs}
    return Table(title, rows, [note], raw)


def prepared_text(source: str, shape: Shape, seed: int) -> Prepared:
    """A text in tokens of the shape's kind, or in characters if it is too small; python-docs has room for 4,096."""
    size = min(shape.tokenizer.vocab_size or 0, 4096) or None
    try:
        return prepare(DataConfig(source=source), TokenizerConfig(shape.tokenizer.type, size), seed, progress=True)
    except UserError:
        return prepare(DataConfig(source=source), TokenizerConfig("char"), seed, progress=True)


def step_parts(bench: Bench, shape: Shape, prepared: Prepared) -> dict[str, Any]:
    """Seconds of every part in the median step (`parts`), of that step (`whole`), and of all `steps`."""
    device, spent = bench.runtime.device, defaultdict[str, float](float)
    measured: list[dict[str, float]] = []

    def clocked(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            synchronise(device)
            began = time.perf_counter()
            result = call(*arguments)
            synchronise(device)
            spent[part] += time.perf_counter() - began
            return result

        return timed

    training = our_training(shape, prepared.train, bench.runtime, seed=0)
    training.set_learning_rate(0.0)
    training.batches.next = clocked("data", training.batches.next)
    training.loss_of = clocked("forward and loss", training.loss_of)
    for optimizer in training.optimizers:
        optimizer.step = clocked("optimizer", optimizer.step)
        optimizer.zero_grad = clocked("optimizer", optimizer.zero_grad)
    whole_step = clocked("whole", training.step)

    def measure_step() -> None:
        spent.clear()
        whole_step()
        whole = spent.pop("whole")
        measured.append({**spent, "backward and clipping": whole - sum(spent.values()), "whole": whole})

    rounds = bench.time({"": measure_step}, f"parts of {shape.name}", shortest=0.0)[""].seconds
    measured = sorted(measured[-len(rounds) :], key=lambda step: step["whole"])  # without the warm-up
    median = measured[len(measured) // 2]
    return {"parts": {part: median[part] for part in PARTS}, "whole": median["whole"], "steps": measured}


def logging_parts(shape: Shape, runtime: Runtime, prepared: Prepared) -> dict[str, dict[str, float]]:
    """For every kind of logging: least `seconds` for one, and the steps from one to the next, `every`."""
    log = shape.log
    with tempfile.TemporaryDirectory() as folder:
        config = Config(out=str(Path(folder) / "run"), model=shape.model, train=shape.train, log=log)
        run = Run.create(config.out, config, prepared.tokenizer, prepared.describe())
        model = Transformer(shape.model, max(shape.vocab_size, prepared.tokenizer.vocab_size)).to(runtime.device)
        training = Training(config, run, prepared, runtime, model)
        with Report(training) as report:
            report.bar.disable = True
            line: dict[str, Any] = {"val_loss": None, "val_bits_per_byte": None, "learning_rate": 1.0, "grad_norm": 1.0}
            line |= {"seconds": 1.0, "train_loss": 1.0, "tokens_per_second": 1.0}

            def log_metrics(step: int) -> None:
                report.metrics({"step": step, "tokens": step, **line})

            def log_heads(step: int) -> None:
                training.progress.step = step
                report.heads(due_after(step, config))

            kinds = {"metrics": (log_metrics, log.every, 1)}
            if log.snapshots_every and (not log.heads_every or log.snapshots_every % log.heads_every):
                kinds["snapshots of heads"] = (log_heads, log.snapshots_every, max(1, log.heads_every))
            if log.heads_every:  # a step with a picture may write a snapshot too, and counts once
                kinds["pictures of heads"] = (log_heads, log.heads_every, 1)
            candidates = {
                name: partial(lambda write, steps: write(next(steps)), write, count(every, every * stride))
                for name, (write, every, stride) in kinds.items()
            }
            timed = alternate(candidates, repeats=REPORTS, seconds=math.inf, device=runtime.device, shortest=0.0)
    return {name: {"seconds": time.minimum, "every": kinds[name][1]} for name, time in timed.items()}
