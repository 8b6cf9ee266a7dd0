"""The steps of a walkthrough for a terminal, and in HTML for a page."""

import html
import math
import textwrap
from collections.abc import Iterator, Sequence

from minitx.heads.walkthrough import Step, Table, Walk


def as_text(walked: Walk, more: Sequence[Step] = ()) -> str:
    """The steps of the layer and `more` for a terminal."""
    lines = [f"Layer {walked.layer}, head {walked.head}, token {walked.query} {walked.label!r}", ""]
    for number, step in enumerate([*walked.steps, *more], 1):
        body = [*textwrap.wrap(step.words, 97), step.shape, ""]
        for table in step.tables:
            body += [table.caption, *_plain_table(table), ""]
        body += [f"✓ {what} (largest difference {difference:.0e})" for what, difference in step.checks]
        body += [""] if step.checks else []
        lines += [f"{number}. {step.title}", *(f"   {line}".rstrip() for line in body)]
    return "\n".join(lines)


def steps_html(walked: Walk, more: Sequence[Step] = ()) -> str:
    """The steps of the layer and `more` as sections of a page."""
    steps = enumerate([*walked.steps, *more], 1)
    return "\n".join(line for number, step in steps for line in _section(number, step))


def _plain_table(table: Table) -> list[str]:
    width = max(len(label) for label in table.rows) + 2
    more = " …" if table.total > len(table.columns) else ""
    lines = []
    if len(table.columns) > 1:
        note = f" … {table.total} in all" if more else ""
        lines.append(" " * width + "".join(f"{column:>8}" for column in table.columns) + note)
    for row, (label, values) in enumerate(zip(table.rows, table.values, strict=True)):
        mark = " ◂" if row == table.marked else ""
        lines.append(f"{label:<{width}}" + "".join(f"{_figure(value):>8}" for value in values) + more + mark)
    return lines


def _section(number: int, step: Step) -> Iterator[str]:
    """The lines of one step of the page."""
    yield f"<section><h2>{number}. {html.escape(step.title)}</h2><p>{html.escape(step.words)}</p>"
    yield f"<p class=shape>{html.escape(step.shape)}</p>"
    for table in step.tables:
        yield from _html_table(table)
    for what, difference in step.checks:
        yield f"<p class=check>✓ {html.escape(what)} <small>(largest difference {difference:.0e})</small></p>"
    yield "</section>"


def _html_table(table: Table) -> Iterator[str]:
    reach = max((abs(value) for values in table.values for value in values if math.isfinite(value)), default=0) or 1
    yield f"<div class=table><table><caption>{html.escape(table.caption)}</caption>"
    if len(table.columns) > 1:
        titles = "".join(f"<th>{column}</th>" for column in table.columns)
        more = f"<th class=more>… {table.total} in all</th>" if table.total > len(table.columns) else ""
        yield f"<tr><th></th>{titles}{more}</tr>"
    for row, (label, values) in enumerate(zip(table.rows, table.values, strict=True)):
        marked = " class=marked" if row == table.marked else ""
        cells = "".join(_html_cell(value, reach) for value in values)
        yield f"<tr{marked}><th>{html.escape(label)}</th>{cells}</tr>"
    yield "</table></div>"


def _html_cell(value: float, reach: float) -> str:
    """A number on red (positive) or blue (negative), the deeper the larger."""
    if not math.isfinite(value):
        return f"<td>{_figure(value)}</td>"
    depth = min(1.0, abs(value) / reach) * 0.6
    colour = "214,80,60" if value > 0 else "60,110,200"
    return f'<td style="background:rgba({colour},{depth:.2f})">{_figure(value)}</td>'


def _figure(value: float) -> str:
    if math.isinf(value):
        return "-∞"
    return f"{value:.3f}" if abs(value) < 99.5 else f"{value:.0f}"
