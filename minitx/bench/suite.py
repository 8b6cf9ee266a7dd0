"""What all suites share: settings, shapes and runtime, candidates timed by turns, and tables of the results."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from minitx.bench.settings import BenchConfig
from minitx.bench.shapes import Shape
from minitx.system.files import without_nan
from minitx.system.runtime import Runtime
from minitx.system.text import markdown_table
from minitx.system.timing import Candidate, Timed, alternate, speed_ups

Cell = str | int | float | None
Row = dict[str, Cell]
"""Cells by column."""


@dataclass(frozen=True)
class Bench:
    """The settings, the shapes that they name, and how to compute."""

    settings: BenchConfig
    shapes: list[Shape]
    runtime: Runtime

    def time(self, candidates: Mapping[str, Candidate], label: str, **options: float) -> dict[str, Timed]:
        """`alternate` the candidates, for as many rounds and seconds as the settings allow."""
        repeats, seconds, device = self.settings.repeats, self.settings.seconds, self.runtime.device
        return alternate(candidates, repeats=repeats, seconds=seconds, device=device, label=label, **options)


@dataclass
class Table:
    """One table of a suite, notes to print below it, and raw timings for the JSON."""

    title: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)

    def add_seconds(self, key: str, timed: Mapping[str, Timed]) -> None:
        """Add seconds per call of every candidate and repeat to the JSON."""
        self.raw[key] = {name: {"seconds": t.seconds, "calls_per_repeat": t.calls} for name, t in timed.items()}

    def add_rates(
        self, key: str, timed: Mapping[str, Timed], base: str, amount: float, before: Row, **after: Mapping[str, Cell]
    ) -> None:
        """Add a row for every candidate: `amount` per second by least and median time, also as multiples of `base`.

        after: name of a column → its cells by candidate.
        """
        for name, (by_best, by_median) in speed_ups(timed, base).items():
            row: Row = {**before, "candidate": name}
            row |= {"best": amount / timed[name].minimum, "median": amount / timed[name].median}
            row |= {"× by best": by_best, "× by median": by_median}
            self.rows.append(row | {column: cells[name] for column, cells in after.items()})
        self.add_seconds(key, timed)

    def as_text(self) -> str:
        """Title, table and notes in Markdown of fixed width, which reads well in a terminal."""
        columns = list(self.rows[0])
        is_text = [any(isinstance(row[column], str) for row in self.rows) for column in columns]
        table = markdown_table(columns, [[shown(cell) for cell in row.values()] for row in self.rows], is_text)
        return "\n".join([f"### {self.title}\n", table, *(f"\n{note}" for note in self.notes)])

    def as_json(self) -> Any:
        """The same content as plain data, with null for an infinity or a NaN."""
        return without_nan(asdict(self))


def shown(cell: Cell) -> str:
    """A cell as text: three significant digits, whole numbers from 1,000 on."""
    if not isinstance(cell, float):
        return "" if cell is None else f"{cell:,}" if isinstance(cell, int) else cell
    if not math.isfinite(cell):
        return "–"
    return f"{cell:,.0f}" if cell == 0 or abs(cell) >= 999.5 else f"{cell:#.3g}".removesuffix(".")
