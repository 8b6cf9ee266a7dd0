"""The figures of a plan → tables and sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

from minitx.studies.plan_settings import PlanConfig
from minitx.system.text import markdown_table

Case = Mapping[str, Any]


def as_text(content: Mapping[str, Any], settings: PlanConfig) -> str:
    """What the plan is for, tables of time and memory, and a sentence for every number of processes."""
    cases = content["cases"]
    operations = float(content["operations per step"])
    units = ((1e15, "10¹⁵"), (1e12, "10¹²"), (1e9, "10⁹"))
    unit, power = next((unit for unit in units if operations > unit[0] / 10), units[-1])
    millions = content["parameters"] / 1e6
    parameters = f"{millions:.1f}" if millions < 10 else f"{millions:,.0f}"
    head = (
        f"{parameters} million parameters, {content['tokens per step']:,} tokens and "
        f"{operations / unit:,.3g} · {power} operations a step. "
        f"{settings.gpu}, {settings.per_machine} in a machine, {settings.network} between; "
        f"{content['bytes for tensors'] / 1e9:.3g} GB each for tensors."
    )
    efficiency = [f"{case['efficiency']:.0%}" for case in cases]
    fits = ["yes" if case["fits"] else "no" for case in cases]
    is_small = max(case["memory"]["in all"] for case in cases) < 1e9
    memory_unit = ("MB per GPU", 1e6) if is_small else ("GB per GPU", 1e9)
    tables = [
        part_table(cases, "seconds", "ms per step", 1e-3, ("efficiency", efficiency)),
        part_table(cases, "memory", *memory_unit, ("fits", fits)),
    ]
    sentences = [verdict([case for case in cases if case["processes"] == count], settings) for count in settings.counts]
    return "\n\n".join([head, *tables, "\n".join(sentences)])


def part_table(cases: Sequence[Case], part: str, title: str, unit: float, last: tuple[str, Sequence[str]]) -> str:
    """A row for every case, a column for every name in its `part`, and a `last` column."""
    name, cells = last
    columns = ["GPUs", title, *cases[0][part], name]
    rows = [
        [case["processes"], case["mode"], *(f"{value / unit:,.1f}" for value in case[part].values()), cell]
        for case, cell in zip(cases, cells, strict=True)
    ]
    return markdown_table(columns, rows, [column == title for column in columns])


def verdict(cases: Sequence[Case], settings: PlanConfig) -> str:
    """Which mode to take, and where more processes stop paying."""
    count = cases[0]["processes"]
    gpus, fitting = f"{count:,} GPU{'s' * (count > 1)}:", [case for case in cases if case["fits"]]
    if not fitting:
        least = min(cases, key=lambda case: float(case["memory"]["in all"]))
        return (
            f"{gpus} nothing fits; {least['mode']} needs {least['memory']['in all'] / 1e9:,.1f} GB. Try a smaller "
            "train.batch_size with more train.grad_accum, more GPUs, or what --lean true counts."
        )
    best = min(fitting, key=lambda case: float(case["seconds"]["in all"]))
    limit = best["pays up to"]
    ends = settings.rows % (2 * limit) != 0
    why = "then the rows end" if ends else f"twice as many are less than {settings.pays:g} times as quick"
    return (
        f"{gpus} take {best['mode']}: {1e3 * best['seconds']['in all']:,.1f} ms a step, {best['efficiency']:.0%} of "
        f"ideal. It pays up to {limit:,} GPU{'s' * (limit > 1)}; {why}."
    )
