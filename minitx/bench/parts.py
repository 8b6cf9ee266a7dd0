"""Where the time of training goes: data, forward, backward, optimizer, and what is logged between the steps.

The step is minitx's own; what it is given is wrapped in clocks, and what no clock saw is the loss, its gradient and
the clipping. So the parts add up to the step whatever it does inside.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minitx.bench.settings import BenchConfig
from minitx.bench.shapes import Shape
from minitx.bench.steps import minitx_step
from minitx.config import Config, DataConfig, TokenizerConfig
from minitx.data.batches import Batches
from minitx.data.prepare import Prepared, prepare
from minitx.model import Transformer
from minitx.run.folder import Run
from minitx.system.errors import UserError
from minitx.system.runtime import Runtime
from minitx.system.timing import synchronise
from minitx.training.loop import training_loss
from minitx.training.optim import build_optimizers, set_learning_rate
from minitx.training.report import Report
from minitx.training.state import Training, due_after

PARTS = ("data", "forward and loss", "backward and clipping", "optimizer")
REPORTS = 3
"""Times that each kind of logging is measured, after one that opens its files."""


class Clocked:
    """Stands in for `inside`: the named methods, calling it and taking its next are timed."""

    def __init__(self, inside: Any, methods: tuple[str, ...], clock: Callable[[Callable[[], Any]], Any]) -> None:
        self.inside, self.methods, self.clock = inside, methods, clock

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.clock(lambda: self.inside(*arguments, **named))

    def __next__(self) -> Any:
        return self.clock(lambda: next(self.inside))

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inside, name)
        if name not in self.methods:
            return found
        return lambda *arguments, **named: self.clock(lambda: found(*arguments, **named))


def step_parts(shape: Shape, runtime: Runtime, prepared: Prepared, repeats: int, seconds: float) -> dict[str, Any]:
    """Seconds of each part, the middle step of them all, and of the whole step: `parts`, `whole`, `steps`."""
    spent: dict[str, float] = defaultdict(float)

    def clock(part: str) -> Callable[[Callable[[], Any]], Any]:
        def timed(call: Callable[[], Any]) -> Any:
            synchronise(runtime.device)
            began = time.perf_counter()
            result = call()
            synchronise(runtime.device)
            spent[part] += time.perf_counter() - began
            return result

        return timed

    model = Transformer(shape.model, shape.vocab_size).to(runtime.device)
    optimizers = build_optimizers(model, shape.train)
    set_learning_rate(optimizers, 0.0)
    batches = Batches(prepared.train, shape.model.context_length, shape.train.batch_size, 0, runtime.device)
    loss_of = Clocked(runtime.compiled(training_loss(model)), (), clock(PARTS[1]))
    clocked = [Clocked(optimizer, ("step", "zero_grad"), clock("optimizer")) for optimizer in optimizers]
    drawn = Clocked(batches, ("next",), clock("data"))
    parameters = list(model.parameters())
    found: list[dict[str, float]] = []
    began = time.perf_counter()
    for step in range(repeats + 2):
        if step >= 5 and time.perf_counter() - began >= seconds:
            break
        spent.clear()
        synchronise(runtime.device)
        start = time.perf_counter()
        minitx_step(loss_of, parameters, clocked, drawn, runtime, shape.train)
        synchronise(runtime.device)
        whole = time.perf_counter() - start
        rest = whole - sum(spent.values())
        found.append({**spent, PARTS[2]: rest, "whole": whole})
    found = sorted(found[2:], key=lambda each: each["whole"])  # the first two warm up
    middle = found[len(found) // 2]
    return {"parts": {name: middle[name] for name in PARTS}, "whole": middle["whole"], "steps": found}


def logging_parts(shape: Shape, runtime: Runtime, prepared: Prepared) -> dict[str, tuple[float, int]]:
    """Least seconds of a line of metrics, a snapshot and a picture of the heads, and the steps from one to the next
    (0 where there is none)."""
    log = shape.log
    found: dict[str, tuple[float, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        config = Config(out=str(Path(folder) / "run"), model=shape.model, train=shape.train, log=log)
        run = Run.create(config.out, config, prepared.tokenizer, prepared.describe())
        model = Transformer(shape.model, max(shape.vocab_size, prepared.tokenizer.vocab_size)).to(runtime.device)
        line = dict.fromkeys(("seconds", "train_loss", "learning_rate", "grad_norm", "tokens_per_second"), 1.0)
        training = Training(config, run, prepared, runtime, model)
        with Report(training) as report:
            report.bar.disable = True

            def metrics(step: int) -> None:
                report.metrics({"step": step, "tokens": step, "val_loss": None, "val_bits_per_byte": None, **line})

            def heads_due_every(every: int) -> Callable[[int], None]:
                def heads(step: int) -> None:
                    training.progress.step = step * every
                    report.heads(due_after(step * every, config))

                return heads

            # A step that is due for pictures is mostly due for a snapshot too, and is counted once, as a picture.
            kinds: dict[str, tuple[Callable[[int], None], int]] = {"metrics": (metrics, log.every)}
            if log.snapshots_every:
                kinds["snapshots of heads"] = (heads_due_every(log.snapshots_every), log.snapshots_every)
            if log.heads_every:
                kinds["pictures of heads"] = (heads_due_every(log.heads_every), log.heads_every)
            for name, (write, every) in kinds.items():
                taken = []
                for step in range(1, REPORTS + 2):
                    if name == "snapshots of heads" and log.heads_every and step * every % log.heads_every == 0:
                        continue
                    synchronise(runtime.device)
                    began = time.perf_counter()
                    write(step)
                    synchronise(runtime.device)
                    taken.append(time.perf_counter() - began)
                found[name] = (min(taken[1:] or taken), every)
    return found


def text_for(settings: BenchConfig, shape: Shape) -> Prepared:
    """The text of --text, or python-docs, in tokens of the shape's kind, at most 4,096 of them, for python-docs yields
    few more; in characters where even those are too many."""
    data = DataConfig(source=settings.text or "python-docs")
    size = min(shape.tokenizer.vocab_size or 0, 4096) or None
    try:
        return prepare(data, TokenizerConfig(shape.tokenizer.type, size), settings.seed, progress=True)
    except UserError:
        return prepare(data, TokenizerConfig("char"), settings.seed, progress=True)
