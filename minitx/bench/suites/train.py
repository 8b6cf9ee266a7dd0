"""The suite `train`: tokens per second and memory of a training step, and how its time divides."""

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from minitx.bench import steps
from minitx.bench.peak import peak_memory
from minitx.bench.shapes import Shape
from minitx.bench.suite import Bench, Row, Table
from minitx.system.timing import synchronise

PARTS = ("data", "forward and loss", "backward and clipping", "optimizer")


def run(bench: Bench) -> Iterator[Table]:
    """Two tables for every shape."""
    for shape in bench.shapes:
        yield speed(bench, shape)
        yield time_by_part(bench, shape)


def speed(bench: Bench, shape: Shape) -> Table:
    """A whole step of all candidates by turns, and the memory of every candidate alone."""
    kinds, notes = steps.kinds(bench)
    base = steps.LLAMA if steps.LLAMA in kinds else steps.OURS
    memory = {kind: peak_memory(bench, kind, shape) for kind in kinds}
    timed = bench.time({kind: steps.build(bench, kind, shape).step for kind in kinds}, f"train {shape.name}")
    raw = {"memory": memory, "base": base, "shape": dataclasses.asdict(shape)}
    table = Table(f"train, tokens per second · {shape.describe_training()}", notes=notes, raw=raw)
    peak, before = ({kind: memory[kind][when] / 1e6 for kind in kinds} for when in ("peak", "before"))
    columns = {"peak memory, MB": peak, "of it imports, MB": before}
    table.add_rates("seconds", timed, base, shape.tokens_per_step, {}, **columns)
    notes.append(
        f"A step is batch, forward, backward, clipping and update. minitx: with optimizer {shape.train.optimizer} and "
        f"qk_norm {shape.model.qk_norm}, as the shape says. × is against {base}."
    )
    return table


def time_by_part(bench: Bench, shape: Shape) -> Table:
    """The share of every part in the median step of minitx, with clocks around the calls that a step makes.

    The rest of the step is backward and clipping, so that the parts add up.
    """
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

    training = steps.build(bench, steps.OURS, shape)
    training.batches.next = clocked("data", training.batches.next)
    training.loss_of = clocked("forward and loss", training.loss_of)
    for optimizer in training.optimizers:
        optimizer.step = clocked("optimizer", optimizer.step)
        optimizer.zero_grad = clocked("optimizer", optimizer.zero_grad)
    whole_step = clocked("together", training.step)

    def measure_step() -> None:
        spent.clear()
        whole_step()
        whole = spent.pop("together")
        measured.append({**spent, "backward and clipping": whole - sum(spent.values()), "together": whole})

    rounds = bench.time({"": measure_step}, f"parts of {shape.name}", shortest=0.0)[""].seconds
    measured = sorted(measured[-len(rounds) :], key=lambda step: step["together"])  # without the warm-up
    median = measured[len(measured) // 2]
    rows: list[Row] = [
        {"part": part, "ms per step": 1e3 * median[part], "share, %": 100 * median[part] / median["together"]}
        for part in (*PARTS, "together")
    ]
    title = f"train, time of a step by part · {shape.describe_training()}"
    return Table(title, rows, ["The median step."], {"steps": measured})
