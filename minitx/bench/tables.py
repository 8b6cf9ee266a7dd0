"""Figures → tables that read well in a terminal and are Markdown at the same time, and JSON with every repeat."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from minitx.bench.settings import BenchConfig
from minitx.system.text import markdown_table
from minitx.system.timing import Candidate, Timed, alternate, speed_ups

Cell = str | int | float | None


@dataclass
class Table:
    """One table of a suite: rows under columns, notes beneath, and the raw figures for the JSON."""

    title: str
    columns: Sequence[str]
    rows: list[list[Cell]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)

    def as_text(self) -> str:
        """A Markdown table of fixed width, under its title, with the notes beneath."""
        notes = [f"\n{note}" for note in self.notes]
        is_text = [any(isinstance(row[i], str) for row in self.rows) for i in range(len(self.columns))]
        cells = [[shown(cell) for cell in row] for row in self.rows]
        return "\n".join([f"### {self.title}\n", markdown_table(self.columns, cells, is_text), *notes])

    def as_json(self) -> dict[str, Any]:
        """The same content as plain data; an infinity or a NaN, which JSON lacks, becomes null."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return plain({"title": self.title, "rows": rows, "notes": self.notes, "raw": self.raw})


def shown(cell: Cell) -> str:
    """A cell as a person reads it: three significant digits or, from 1,000 on, whole."""
    if cell is None:
        return ""
    if isinstance(cell, float):
        if not math.isfinite(cell):
            return "–"
        if abs(cell) >= 999.5:
            return f"{cell:,.0f}"
        rounded = float(f"{cell:.3g}")
        digits = 2 - math.floor(math.log10(abs(rounded))) if rounded else 0
        return f"{rounded:,.{min(6, max(0, digits))}f}"
    return f"{cell:,}" if isinstance(cell, int) else cell


def plain(value: Any) -> Any:
    """`value` with None in place of what JSON lacks."""
    if isinstance(value, Mapping):
        return {str(key): plain(inside) for key, inside in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inside) for inside in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


RATES = ("best", "median", "× by best", "× by median")
"""The columns that `rates` fills."""


def rates(timed: Mapping[str, Timed], base: str, amount: float) -> dict[str, list[Cell]]:
    """For each candidate `amount` per second at its least and its middle time, and how many times `base` that is."""
    ratios = speed_ups(timed, base)
    return {name: [amount / each.minimum, amount / each.median, *ratios[name]] for name, each in timed.items()}


def raw_seconds(timed: Mapping[str, Timed]) -> dict[str, Any]:
    """The raw figures of a comparison: seconds of a call for each candidate and repeat."""
    return {name: {"seconds": each.seconds, "calls_per_repeat": each.calls} for name, each in timed.items()}


def by_turns(
    settings: BenchConfig, candidates: Mapping[str, Candidate], device: torch.device, label: str
) -> dict[str, Timed]:
    """`alternate` for as many rounds and as long as the settings say."""
    return alternate(candidates, repeats=settings.repeats, seconds=settings.seconds, device=device, label=label)
